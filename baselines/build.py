"""Building of regressors from their options."""

from __future__ import annotations

from typing import Literal, get_args

from torch import nn

from baselines.cnn import CNN, DeepCNN
from baselines.fusion import Classifier, Fusion
from baselines.regression import RegressionColorizer
from baselines.resnet18 import Library, ResNet18Regressor
from baselines.rgb import RGBColorizer
from baselines.strided import CHANNELS, Activation, MeanChroma, Transposed
from common.networks.encoder_unet import DEFAULT_ENCODER, EncoderUNet, Freeze
from common.networks.fully_connected import FullyConnected
from common.training.losses import MixedLoss, loss_weights
from common.training.perceptual import PerceptualConfig
from common.utils.errors import UserError
from common.utils.options import refuse_unused_arguments

# Options of each network, beside `loss` and `perceptual`.
_OPTIONS: dict[str, tuple[str, ...]] = {
    "cnn": ("target",),
    "cnn_deep": (),
    "resnet18": ("encoder", "pretrained"),
    "encoder_unet": ("encoder", "pretrained", "freeze", "width"),
    "mean_chroma": ("size", "channels"),
    "transposed": ("size", "channels", "activation"),
    "fully_connected": ("size", "dropout"),
    "encoder_decoder": (),
    "fusion": ("encoder", "pretrained", "encoder_size"),
}
# Options that older cards and configs do not have, with the values that they were trained with.
_ADDED_LATER = {"activation": "tanh", "dropout": 0.0, "target": "ab"}


def build(
    network: Literal[
        "cnn", "cnn_deep", "resnet18", "encoder_unet", "mean_chroma", "transposed", "fully_connected",
        "encoder_decoder", "fusion",
    ] = "cnn",
    loss: dict[str, float] | str = "mse",
    encoder: str | None = None,
    pretrained: bool = False,
    freeze: Freeze = "all",
    width: float = 1.0,
    perceptual: PerceptualConfig = PerceptualConfig(),
    size: int | None = None,
    channels: list[int] | None = None,
    activation: Activation = "tanh",
    dropout: float = 0.0,
    target: Literal["ab", "rgb"] = "ab",
    encoder_size: int | None = None,
) -> RegressionColorizer | RGBColorizer:  # fmt: skip
    """Build a regressor.

    Args:
        network: `cnn` is a plain stack of convolutions, `cnn_deep` its improved form, `resnet18` the first half of a
            ResNet18 with an upsampling head, `encoder_unet` a U-Net on a timm encoder (0.76 M trained parameters),
            `mean_chroma` predicts one color for the whole picture, `transposed` has strided and transposed
            convolutions, `fully_connected` a linear layer over the whole picture (32 and 64 px), `fusion` an
            encoder-decoder with the output of a frozen classifier, `encoder_decoder` the same without the classifier.
        loss: loss on ab in network range (ab / 110): mse, l1, smooth_l1 or perceptual, or the weights of several, as in
            {l1: 1, mse: 0.5}.
        encoder: with `encoder_unet`, a timm network with feature maps, with `fusion`, a timm classifier such as
            inception_resnet_v2 (both: default tf_efficientnet_lite0). With `resnet18`, the library of the network:
            `timm` or `torchvision` (default: torchvision).
        pretrained: start the ResNet18, the encoder of `encoder_unet` or the classifier of `fusion` from ImageNet
            weights.
        freeze: of `encoder_unet`: `all` freezes the encoder, `stages` its layers up to 1/8 of the size, `none` nothing.
        width: with `encoder_unet`, factor on the channels of the decoder.
        perceptual: options of the perceptual loss.
        size: of the pictures of `mean_chroma`, `transposed` and `fully_connected` (default: that of the training data).
        channels: of the strided convolutions of `mean_chroma` and `transposed`, each of which halves the picture
            (default: 32, 64, 128, 256, 256, 512).
        activation: at the end of `transposed`: `tanh` (ab in -1..1) or `sigmoid` (ab in 0..1).
        dropout: probability, after each batch norm of `fully_connected`.
        target: what `cnn` predicts: `ab`, or `rgb`, of which only the ab is used.
        encoder_size: side of the square that the classifier of `fusion` sees, in pixels (default: its own).
    """
    given = {name: value for name, value in locals().items() if name not in ("network", "loss", "perceptual")}
    if network not in _OPTIONS:
        raise UserError(f"model.network is {network}: expected {', '.join(_OPTIONS)}")
    unused = {name: value for name, value in given.items() if name not in ("size", *_OPTIONS[network])}
    refuse_unused_arguments("model", build, unused, f"the network {network}")
    mixed = MixedLoss(loss_weights(loss), perceptual)
    if target == "rgb":
        return RGBColorizer(CNN(3), mixed.weights)
    size = 64 if size is None else size
    channels = CHANNELS if channels is None else channels
    built: nn.Module
    if network == "resnet18":
        library = encoder or "torchvision"
        if library not in get_args(Library):
            raise UserError(f"model.encoder is {library}: with resnet18, expected {', '.join(get_args(Library))}")
        built = ResNet18Regressor(library, pretrained)
    elif network == "encoder_unet":
        built = EncoderUNet(2, encoder or DEFAULT_ENCODER, pretrained, freeze, width, full_size=True)
    elif network == "mean_chroma":
        built = MeanChroma(size, channels)
    elif network == "transposed":
        built = Transposed(size, channels, activation)
    elif network == "fully_connected":
        built = FullyConnected(size, dropout=dropout)
    elif network == "fusion":
        built = Fusion(Classifier(encoder or DEFAULT_ENCODER, pretrained, encoder_size))
    else:
        built = {"cnn": CNN, "cnn_deep": DeepCNN, "encoder_decoder": Fusion}[network]()
    return RegressionColorizer(built, mixed)


def upgrade(model: dict) -> dict:
    """Convert options of old weights, whose losses were given as `l1+mse` with `l1_weight` and `mse_weight`.

    The size is dropped where the network does not depend on it, since older configs do not have it.
    """
    model = _ADDED_LATER | model
    if "size" not in _OPTIONS.get(model.get("network", "cnn"), ("size",)):
        model["size"] = None
    weights = {name: model.pop(f"{name}_weight", 1.0) for name in ("l1", "mse")}
    return model | {"loss": weights} if model.get("loss") == "l1+mse" else model
