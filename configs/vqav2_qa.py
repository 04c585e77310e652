"""VQAv2, by the predecessor's recipe; words: a size, a preset, `vg` or `vg_gqa`.

    python -m data.prepare vqav2 --raw=VQA --out=prepared
    python train.py --config=configs/vqav2_qa.py:large --workdir=runs/vqav2_qa \
        --config.init_from=PRETRAINED
    python eval.py --checkpoint=runs/vqav2_qa --which=best

Split `testdev`, 107,394 questions, and `test` (std), 447,793: their answers are hidden, and eval.py
writes the files to submit. Trained on `train` and `val` (443,757 and 214,354 questions), as is
usual for these splits, but for those of a twentieth of the images of `val`, which are held out to
tune on. Paper: VQA accuracy 81.11 / 81.13, as remembered, unconfirmed.

With `vg` it is trained on the questions of Visual Genome too, as the predecessor mPLUG was, and
with `vg_gqa` on those of GQA besides, which the release's reader has a place for. `data.prepare`
writes them as `visual_genome` and `gqa`; neither has images of VQAv2's tests.
"""

from configs import common, recipe

# By source: its folder, what of it is trained on, how many questions that has.
SETS = {
    "vqav2": ("vqav2", "train+val[rest]", 443_757 + 214_354 * 19 // 20),
    "visual_genome": ("visual_genome", "train", 1_445_322),
    "gqa": ("gqa", "train", 943_000),
}
MORE = {"": ("vqav2",), "vg": ("vqav2", "visual_genome"), "vg_gqa": tuple(SETS)}
VARIANTS = ("vg", "vg_gqa")
BATCH = 2_048
SOURCES = recipe.PIXELS | {
    "optimizer.learning_rate optimizer.vision_learning_rate epochs":
        "mPLUG: configs/vqa_mplug_large.yaml, lr1, lr2 and epochs",
    "optimizer.warmup_steps": "mPLUG: vqa_mplug.py, warmup_epochs 4 of 100 iterations",
    "stream.batch_size":
        "mPLUG: the YAML's batch_size_train 256, of a loader; scripts/vqa_mplug_large.sh, 8 GPUs",
    "stream.prompt_length": "mPLUG: vqa_mplug.py, 25 without tags",
    "stream.target_length": "ours: the 10 tokens that are generated, [CLS] and [SEP]",
    "task.beams task.min_length task.max_length":
        "mPLUG: vqa_mplug.py, beam_size, min_length and max_length",
    "examples": "data: questions of the sources, less the part that is held out",
}


def get_config(options: str = "large"):
    said = recipe.words(options, sources=MORE)
    config = recipe.start(said, "vqav2", new=("fusion",))
    config.task = common.task("qa", beams=5, min_length=1, max_length=10)
    images = dict(frames=1, image_size=config.model.image_size * 3 // 2, prompt_length=25,
                  target_length=12)
    used = {name: SETS[name] for name in MORE[said["sources"]]}
    questions = sum(count for _, _, count in used.values())
    split = SETS["vqav2"][1] if len(used) == 1 else {
        name: common.source(split, count / questions, root=f"{recipe.PREPARED}/{folder}")
        for name, (folder, split, count) in used.items()}
    config.data.streams.image = common.stream(split, BATCH, **recipe.IMAGES, **images)
    recipe.pace(config, questions, BATCH, epochs=8, rate=3e-5, vision_rate=5e-6, warmup=400)
    for split in ("testdev", "test"):
        recipe.evaluate(config, split, split, "val[held_out]", batch=64, kind=f"image_{split}",
                        best="{kind}_qa_vqa_accuracy", **images)
    return config
