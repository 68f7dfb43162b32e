#!/usr/bin/env bash
# A small example on photographs that come with the libraries: train four colorizers, compare them with the
# trivial rows, and draw their results. Nothing is downloaded after the installation. Results are in runs/quickstart.
set -euo pipefail
root="$(cd "$(dirname "$0")/.." && pwd)"
cd "$root"
python="$(bash scripts/setup.sh)"
out=runs/quickstart
budget="${1:-40s}"  # for each model

for experiment in baselines/cnn_deep baselines/resnet18 classification/rebalanced gan/pix2pix_64; do
  echo "== $experiment, $budget" >&2
  "$python" -m scripts.train --config "experiments/$experiment.yaml" --run "$out/${experiment##*/}" --fresh true \
    --budget "$budget" --data.margin 1.0 --augment.crop resized --augment.min_scale 0.4 --batch_size 32 --optim.ema 0.98 \
    --sample_every 100 --log_every 25 --save_every 100
done
"$python" -m scripts.compare "$out"/cnn_deep "$out"/resnet18 "$out"/rebalanced "$out"/pix2pix_64 photo \
  --data demo --seen demo --size 64 --out "$out" --photos 6 \
  --metrics rmse_ab psnr ssim delta_e colorfulness_ratio auc auc_rebalanced

cat <<END

report  $out/report.html
table   $out/table.md
grid    $out/grid.png
curves  $out/curves.png
watch   $python -m tensorboard.main --logdir runs

Eleven photographs are too few to learn colors from; the four trained models only show that the installation works.
The installed model photo has seen none of the eleven.
With your own photographs:
  bash scripts/train_resnet18.sh --data.train FOLDER --budget 20m --run runs/mine
  $python -m scripts.colorize PHOTO.jpg --model runs/mine --out PHOTO.color.jpg
END
