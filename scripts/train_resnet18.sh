#!/usr/bin/env bash
# Train the ResNet18 regressor. The first call installs everything. Options of scripts.train may follow:
#   bash scripts/train_resnet18.sh --data.train 'shards/train-*.tar' --data.val shards/val-000000.tar --budget 15m
# To watch the training: tensorboard --logdir runs
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
python="$(bash "$root/scripts/setup.sh")"
PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" exec "$python" -m scripts.train --config "$root/experiments/baselines/resnet18.yaml" "$@"
