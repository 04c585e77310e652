"""VQAv2, by the predecessor's recipe; words: a size, a preset, `vg`, `vg_gqa` or `tags`.

    python -m data.prepare vqav2 --raw=VQA --out=prepared
    python train.py --config=configs/vqav2_qa.py:large --workdir=runs/vqav2_qa \
        --config.init_from=PRETRAINED
    python eval.py --checkpoint=runs/vqav2_qa --which=best

Split `testdev`, 107,394 questions, and `test` (std), 447,793: their answers are hidden, and eval.py
writes the files to submit, `testdev_submission.json` and `test_submission.json`; EvalAI's server by
now wants the latter, of all questions, for both phases. Trained on `train` and `val` (443,757 and
214,354 questions), as is usual for these splits, but for those of a twentieth of the images of
`val`, which are held out to tune on. Paper: VQA accuracy 81.11 / 81.13, as remembered, unconfirmed.

With `vg` it is trained on the questions of Visual Genome too, and with `vg_gqa` on those of GQA
besides, which the release's reader has a place for; `data.prepare` writes `visual_genome` and
`gqa`. With `tags` it is the predecessor mPLUG's own: its JSON files, prepared as `mplug_vqa`, whose
questions come with the words and the objects of the image, and Visual Genome's among them. mPLUG
trains on its `minival` too; here that is what it is tuned on. Visual Genome and GQA have images of
`val`, with other questions, so that what is held out is not quite unseen.
"""

from configs import common, recipe

HALF = 0.5  # a question of Visual Genome or GQA to one of VQAv2
# By source: its folder, what of it is trained on, how many questions that has, the weight of each.
SETS = {
    "vqav2": ("vqav2", "train+val[rest]", 443_757 + 214_354 * 19 // 20, 1.0),
    "visual_genome": ("visual_genome", "train", 1_445_322, HALF),
    "gqa": ("gqa", "train", 943_000, HALF),
    "tagged": ("mplug_vqa", "vqa_train_ocr+vqa_nominival_ocr", 443_757 + 214_354, 1.0),
    "tagged_genome": ("mplug_vqa", "vg_qa", 1_445_322, HALF),
}
SOURCED = {"": ("vqav2",), "vg": ("vqav2", "visual_genome"),
           "vg_gqa": ("vqav2", "visual_genome", "gqa"), "tags": ("tagged", "tagged_genome")}
VARIANTS = ("vg", "vg_gqa", "tags")
BATCH = 2_048
SOURCES = recipe.PIXELS | {
    "optimizer.learning_rate optimizer.vision_learning_rate epochs":
        "mPLUG: configs/vqa_mplug_large.yaml, lr1, lr2 and epochs",
    "optimizer.warmup_steps": "mPLUG: vqa_mplug.py, warmup_epochs 4 of 100 iterations",
    "stream.batch_size":
        "mPLUG: the YAML's batch_size_train 256, of a loader; scripts/vqa_mplug_large.sh, 8 GPUs",
    "stream.prompt_length": "mPLUG: vqa_mplug.py, 25 without tags; scripts/vqa_mplug_large.sh, "
                            "max_input_length 80 with them",
    "stream.tags": "mPLUG: scripts/vqa_mplug_large.sh, add_ocr and add_object",
    "model.max_positions": "ours: tiny has fewer than the tags need",
    "stream.target_length": "ours: the 10 tokens that are generated, [CLS] and [SEP]",
    "task.beams task.min_length task.max_length":
        "mPLUG: vqa_mplug.py, beam_size, min_length and max_length",
    "stream.weights_of": "release: dataset/vqa_dataset.py joins the files, so that each question "
                         "weighs as its answers do: 1 of VQAv2, 0.5 of Visual Genome and GQA",
    "examples": "data: questions of the sources, less what is held out. Those of Visual Genome and "
                "GQA are drawn half as often, and half of them count. With `tags` about: mPLUG "
                "filtered them",
}


def get_config(options: str = "large"):
    said = recipe.words(options, sources=SOURCED)
    tags = said["sources"] == "tags"
    used = {name: SETS[name] for name in SOURCED[said["sources"]]}
    folder = "mplug_vqa" if tags else "vqav2"
    config = recipe.start(said, folder)
    config.task = common.task("qa", beams=5, min_length=1, max_length=10)
    images = dict(frames=1, image_size=config.model.image_size * 3 // 2, target_length=12,
                  prompt_length=80 if tags else 25, tags="ocr+objects" if tags else "")
    config.model.max_positions = max(config.model.max_positions, images["prompt_length"])  # of tiny
    questions = round(sum(count * weight for _, _, count, weight in used.values()))
    split = SETS["vqav2"][1] if len(used) == 1 else {
        name: common.source(split, weight, root=f"{recipe.PREPARED}/{place}")
        for name, (place, split, _, weight) in used.items()}
    joined = {} if len(used) == 1 else dict(weights_of="items")
    config.data.streams.image = common.stream(split, BATCH, **joined, **recipe.IMAGES, **images)
    recipe.pace(config, {"items": questions}, BATCH, epochs=8, rate=3e-5, vision_rate=5e-6,
                warmup=400)
    splits = {"test": "vqa_test_ocr"} if tags else {"testdev": "testdev", "test": "test"}
    for name, split in splits.items():
        recipe.evaluate(config, name, split, "vqa_minival_ocr" if tags else "val[held_out]",
                        batch=64, kind=f"image_{name}", best="{kind}_qa_vqa_accuracy", **images)
    return config
