"""`fedd bench`: the speed of a backbone on this machine."""

from __future__ import annotations

import click

from fedd.cli import options


@click.command(cls=options.Command)
@options.BACKBONE
@click.option(
    "--untrained",
    is_flag=True,
    help="The architecture of imagenet-256 with random weights: as fast, and nothing to fetch.",
)
@options.devices("auto")
@options.PRECISION
@options.count(
    "--images",
    32,
    "Photographs to measure with; decoding overlaps with computing over several batches.",
)
@options.count("--batch", 64, "Photographs in a batch; halved if memory runs out.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def bench(
    backbone: str,
    untrained: bool,
    device: str,
    precision: str,
    images: int,
    batch: int,
    as_json: bool,
) -> None:
    """Measure images per second, from JPEG to features, and the used share of the device.

    It is the speed of the backbone alone: photographs are decoded and resized on threads while the
    device computes, and the features are dropped. 'ddiseg prelabel' is slower, because it also predicts
    masks between the passes. The peak is that of a large matrix product in the same precision, measured
    in the same run.
    """
    import json
    from dataclasses import asdict

    from fedd.backbone import IMAGENET_256, DiffusionUNet
    from fedd.network.throughput import measure
    from fedd.precision import place_in
    from fedd.segment import default_settings
    from fedd.weights.files import load_backbone
    from fedd.weights.names import described_weights, weights_origin

    net = DiffusionUNet.random(IMAGENET_256) if untrained else load_backbone(backbone)
    spec = default_settings(net).features
    found = measure(place_in(net, device, precision), spec, images, batch)
    if as_json:
        about = {"weights_hash": net.hash, "weights": weights_origin(net.hash, net.verified)}
        click.echo(json.dumps(asdict(found) | about))
        return
    click.echo(
        f"{described_weights(net.name, net.hash, net.verified)}\n"
        f"{found.backbone} on {', '.join(found.devices)}, {found.precision}, to decoder block "
        f"{max(found.blocks)}, n = {found.images} photographs\n"
        f"{found.images_per_second:.2f} images/s from JPEG to features, no masks predicted, "
        f"{found.gflop_per_image:.1f} GFLOP per image\n"
        f"{found.gflop_per_second:.1f} GFLOP/s reached, {found.flop_share:.0%} of the "
        f"{found.peak_gflop_per_second:.1f} GFLOP/s of a matrix product here\n"
        f"peak memory {found.peak_memory_bytes / 1e9:.2f} GB"
    )
