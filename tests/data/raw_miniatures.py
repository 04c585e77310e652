"""A miniature of every dataset: writes its raw files, gives {split: the records they hold}."""

import raw_actions
import raw_images
import raw_pairs
import raw_pretraining
import raw_videos

MINIATURES = {
    "msrvtt": raw_videos.msrvtt,
    "msrvtt_1ka": raw_videos.msrvtt_1ka,
    "msrvtt_qa": raw_videos.msrvtt_qa,
    "msvd": raw_videos.msvd,
    "msvd_qa": raw_videos.msvd_qa,
    "tgif_frameqa": raw_videos.tgif_frameqa,
    "didemo": raw_videos.didemo,
    "lsmdc": raw_videos.lsmdc,
    "release_jsonl": raw_videos.release_jsonl,
    "coco_karpathy": raw_images.coco_karpathy,
    "flickr30k_karpathy": raw_images.flickr30k_karpathy,
    "nocaps": raw_images.nocaps,
    "coco2014": raw_images.coco2014,
    "vqav2": raw_images.vqav2,
    "refcoco": raw_images.refcoco,
    "refcoco_plus": raw_images.refcoco,
    "refcocog": raw_images.refcocog,
    "webvid": raw_videos.webvid,
    "cc3m": raw_images.cc3m,
    "cc12m": raw_images.cc12m,
    "webdataset": raw_images.webdataset,
    "kinetics400": raw_actions.kinetics,
    "kinetics600": raw_actions.kinetics,
    "kinetics700": raw_actions.kinetics,
    "ssv2": raw_actions.ssv2,
    "class_folders": raw_pairs.class_folders,
    "nlvr2": raw_pairs.nlvr2,
    "snli_ve": raw_pairs.snli_ve,
    **raw_pairs.GLUE,
    "text_folder": raw_pairs.text_folder,
    "wikipedia": raw_pretraining.wikipedia,
    "c4": raw_pretraining.c4,
    "json_lines": raw_pretraining.json_lines,
    "visual_genome": raw_pretraining.visual_genome,
    "sbu": raw_pretraining.sbu,
    "gqa": raw_pretraining.gqa,
    "albef_json": raw_pretraining.albef_json,
    "mplug_vqa": raw_pretraining.mplug_vqa,
    "refcoco_union": raw_images.refcoco_union,
    "kinetics710": raw_actions.kinetics710,
    "flowers102": raw_images.flowers102,
}
