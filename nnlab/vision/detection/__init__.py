"""Detection: boxes, what anchors learn, non-maximum suppression, and average precision."""

from nnlab.vision.detection.anchors import (
    cell_anchors,
    clustered_anchors,
    grid_anchors,
    grid_points,
    mean_best_iou,
    pyramid_anchors,
    window_anchors,
)
from nnlab.vision.detection.boxes import (
    area,
    centers,
    ciou,
    clip,
    corners,
    diou,
    giou,
    iou,
    pairwise,
)
from nnlab.vision.detection.coco_ap import CocoResult, CocoScores, as_coco, coco_ap, pycocotools_ap
from nnlab.vision.detection.coding import boxes_at, decode, distances, encode
from nnlab.vision.detection.detectors import (
    Detections,
    Detector,
    average_precision,
    best_boxes,
    found_in,
    loss_parts,
    total_loss,
    truths_of,
)
from nnlab.vision.detection.fcos_targets import fcos_matches, fcos_points
from nnlab.vision.detection.found import Found, Truth, found, truth
from nnlab.vision.detection.losses import box_loss, centerness, smooth_l1
from nnlab.vision.detection.matching import BACKGROUND, IGNORE, Sample, match, sample
from nnlab.vision.detection.regions import pyramid_level, roi_align, roi_pool
from nnlab.vision.detection.suppression import Kept, nms
from nnlab.vision.detection.voc_ap import AveragePrecision, voc_ap
from nnlab.vision.detection.yolo_loss import (
    YoloLoss,
    YoloTargets,
    yolo_boxes,
    yolo_targets,
    yolo_v2_loss,
    yolo_v3_loss,
)
from nnlab.vision.detection.yolo_v1_loss import YoloV1Loss, yolo_v1_loss

__all__ = [
    "BACKGROUND",
    "IGNORE",
    "AveragePrecision",
    "CocoResult",
    "CocoScores",
    "Detections",
    "Detector",
    "Found",
    "Kept",
    "Sample",
    "Truth",
    "YoloLoss",
    "YoloTargets",
    "YoloV1Loss",
    "area",
    "as_coco",
    "average_precision",
    "best_boxes",
    "box_loss",
    "boxes_at",
    "cell_anchors",
    "centerness",
    "centers",
    "ciou",
    "clip",
    "clustered_anchors",
    "coco_ap",
    "corners",
    "decode",
    "diou",
    "distances",
    "encode",
    "fcos_matches",
    "fcos_points",
    "found",
    "found_in",
    "giou",
    "grid_anchors",
    "grid_points",
    "iou",
    "loss_parts",
    "match",
    "mean_best_iou",
    "nms",
    "pairwise",
    "pycocotools_ap",
    "pyramid_anchors",
    "pyramid_level",
    "roi_align",
    "roi_pool",
    "sample",
    "smooth_l1",
    "total_loss",
    "truth",
    "truths_of",
    "voc_ap",
    "window_anchors",
    "yolo_boxes",
    "yolo_targets",
    "yolo_v1_loss",
    "yolo_v2_loss",
    "yolo_v3_loss",
]
