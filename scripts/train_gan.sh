#!/usr/bin/env bash
# Train pix2pix. The first call installs everything. Options of scripts.train may follow:
#   bash scripts/train_gan.sh --data.train 'shards/train-*.tar' --data.val shards/val-000000.tar --budget 15m
# Options of this script, which must come first and can be combined:
#   --pretrain        train in stages: the generator with L1 alone, the discriminator until it is accurate, then both.
#                     The same number of steps takes a fifth less time.
#   --perceptual      add a perceptual loss. A step takes two to three times as long on a CPU. The VGG16 weights are
#                     downloaded, or given as --model.perceptual.weights FILE.
#   --encoder NAME    use a U-Net on a timm network as the generator, as in --encoder resnet18
#   --cyclegan        train CycleGAN on unpaired photographs at 32 px; --data.grey DIR names old photographs of your own
#   --l1              train the generator with L1 alone, as a baseline
# To watch the training: tensorboard --logdir runs
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
      [ $# -gt 1 ] || { echo "error: --encoder names no network: give the name of a timm network, as in --encoder resnet18" >&2; exit 2; }
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
