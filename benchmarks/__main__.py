"""Run benchmarks by name: `python -m benchmarks [NAME ...]`."""

from __future__ import annotations

import argparse
import platform
import sys
from importlib import import_module

NAMES = {
    "startup": "ddiseg --help against the bare interpreter",
    "import_images": "ddiseg import against a loop that decodes and encodes",
    "export_coco": "COCO export against pycocotools class by class",
    "brush_rle": "Label Studio's brush RLE against its SDK and the codec compiled from Rust",
    "mask_round_trips": "masks that four other tools wrote, imported: IoU by tool and class",
    "backbone_prefix": "prefix of the ImageNet UNet against the full forward with hooks",
    "gpu": "the paper's network, probes and pipeline on a GPU (six minutes)",
    "probe_memory": "training 5 probes against materialised up-sampled features",
    "probe_training": "training 5 probes against ddpm-segmentation's loop (half an hour)",
    "interval_coverage": "how often the intervals hold the true value, by patients (3 minutes)",
    "near_duplicates": "copies of photographs against perceptual hashes: precision and recall",
    "prelabel": "prelabel without a network and with small, against the way it was (5 minutes)",
    "ray_engine": "prelabel on a Ray of this machine against the machine alone (15 minutes)",
    "precision": "masks in bfloat16 against those in float32, on photographs: equal pixels",
    "ensemble": "members that vote against their mean softmax, on photographs: pixels, lesion IoU",
    "refresh_and_gate": "refresh and gate at 120 masks (goal: under 6 minutes)",
    "outline_colours": "which colours can be seen at a lesion's rim, by colour-blind readers too",
    "clicks": "clicks to a lesion IoU of 0.8 beside GrabCut and the random walker (15 minutes)",
    "label_pull": "10,000 annotated tasks brought back: memory, and masks a second",
    "label_push": "1,000 images given to annotators against plain posts of the same bodies",
    "server_predict": "/predict from stored predictions: tasks a second (goal: 200)",
    "webhook": "webhooks at 50 a second against a server process: latency (goal: p99 under 100 ms)",
    "label_efficiency": "lesion IoU from 10, 30, 90 masks of two sources, five seeds (two hours)",
    "adaptation": "lesion IoU after 0 to 20 own masks, from a model of another source (20 minutes)",
    "scribbles": "lesion IoU from three strokes a class beside whole masks (an hour)",
    "expected_iou": "how well expected IoU tells the IoU reached (seconds after label_efficiency)",
    "failures": "the worst and the median photographs, and kinds of failure counted (5 minutes)",
    "malignancy": "ROC-AUC by recipe, beside colour and clinical answers alone (10 minutes)",
    "batch_draw": "a batch of 100 out of 100,000 images against the 100 most uncertain",
    "loop_simulation": "lesion IoU against masks spent, by what was labelled next (an hour)",
    "verify_files": "verify against a bare loop that decodes and hashes the same files (goal: 80 %)",
    "scale": "commands on catalogues of 10,000 and 100,000 images: time, memory, growth (10 minutes)",
    "writers": "ten writers at once on SQLite and PostgreSQL: transactions, fairness, waits (3 minutes)",
    "five_classes": "FEDD against five UNets on phantoms over the published masks (half an hour)",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m benchmarks",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="\n".join(f"  {name:<18}{what}" for name, what in NAMES.items()),
    )
    parser.add_argument("names", nargs="*", choices=[*NAMES, []], metavar="NAME")
    chosen = parser.parse_args().names or list(NAMES)
    print(f"Python {platform.python_version()}, {platform.machine()}, {len(_cores())} cores\n")
    for name in chosen:
        print(f"== {name}: {NAMES[name]}")
        sys.stdout.flush()
        import_module(f"benchmarks.{name}").main()
        print()


def _cores() -> set[int]:
    import os

    return os.sched_getaffinity(0)


if __name__ == "__main__":
    main()
