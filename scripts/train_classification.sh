#!/usr/bin/env bash
# Train the classification model. The first call installs everything. Options of scripts.train may follow:
#   bash scripts/train_classification.sh --data.train 'shards/train-*.tar' --data.val shards/val-000000.tar --budget 20m
# The ablation of Zhang et al. (2016), three runs in sequence (rebalanced, not rebalanced, L2 with the same trunk):
#   bash scripts/train_classification.sh --ablation --data.train 'shards/train-*.tar' --data.val shards/val-000000.tar
# Then: python -m scripts.compare runs/rebalanced runs/not_rebalanced runs/l2 --data shards/val-000000.tar --out ablation
# To watch the training: tensorboard --logdir runs
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
python="$(bash "$root/scripts/setup.sh")"
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
experiments="$root/experiments/classification"

if [ "${1:-}" != --ablation ]; then
  exec "$python" -m scripts.train --config "$experiments/rebalanced.yaml" "$@"
fi
shift
for option in "$@"; do
  case "$option" in
    --run | --run=*) echo "error: --run names one folder for three runs: do not use it with --ablation" >&2; exit 2 ;;
  esac
done
for variant in rebalanced not_rebalanced l2; do
  "$python" -m scripts.train --config "$experiments/$variant.yaml" "$@"
done
