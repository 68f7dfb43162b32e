#!/usr/bin/env bash
# Train pix2pix. The first call installs everything. Options of scripts.train may follow:
#   bash scripts/train_gan.sh --data.train 'shards/train-*.tar' --data.val shards/val-000000.tar --budget 15m
# Options of this script, which must come first and can be combined:
#   --pretrain        the generator under L1 first, the discriminator until it wins, then both: as many steps in a
#                     fifth less time
#   --perceptual      a VGG16 beside L1: two to three times the time of a step on a processor; its weights are fetched,
#                     or --model.perceptual.weights FILE
#   --encoder NAME    a U-Net on a timm network as the generator, as in --encoder resnet18
#   --cyclegan        unpaired, at 32 px: old photographs of one's own with --data.grey DIR
#   --l1              the generator under L1 alone, to compare with
# Watch it: tensorboard --logdir runs
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
experiment=pix2pix_64 more=()
while [ $# -gt 0 ]; do
  case "$1" in
    --pretrain) wanted=pretrain_64 ;;
    --cyclegan) wanted=cyclegan_32 ;;
    --l1) wanted=l1_64 ;;
    --perceptual) wanted="$experiment"; more+=(--model.perceptual.weight 10) ;;
    --encoder)
      [ $# -gt 1 ] || { echo "error: --encoder names no network: give one that timm knows, as in --encoder resnet18" >&2; exit 2; }
      wanted="$experiment"; more+=(--model.generator "{network: timm, encoder: $2}"); shift ;;
    *) break ;;
  esac
  if [ "$experiment" != pix2pix_64 ] && [ "$wanted" != "$experiment" ]; then
    echo "error: --pretrain, --cyclegan and --l1 exclude each other: give one" >&2
    exit 2
  fi
  experiment="$wanted"
  shift
done
python="$(bash "$root/scripts/setup.sh")"
PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" exec "$python" -m scripts.train \
  --config "$root/experiments/gan/$experiment.yaml" ${more[@]+"${more[@]}"} "$@"
