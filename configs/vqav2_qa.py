"""VQAv2: `:tiny`, `:base` or `:large` (the default).

    python -m data.prepare vqav2 --raw=VQA --out=prepared
    python train.py --config=configs/vqav2_qa.py:large --workdir=runs/vqav2_qa \
        --config.init_from=PRETRAINED
    python eval.py --checkpoint=runs/vqav2_qa

Split `testdev`, 107,394 questions, and `test` (std), 447,793: their answers are hidden, and eval.py
writes the files to submit. Trained on `train` and `val` (443,757 and
214,354 questions), as is usual for these splits. Paper: VQA accuracy 81.11 / 81.13, as remembered,
unconfirmed. To measure without the server: `--config.data.streams.image.split=train`, then
`eval.py --validation`, which reads `val`. Rates, epochs, batch, 336 pixels: as the predecessor
mPLUG published them, which trained on Visual Genome's questions too.
"""

from configs import common, recipe

QUESTIONS = 443_757 + 214_354
BATCH = 256


def get_config(size: str = "large"):
    config = recipe.start(size, "vqav2")
    config.task = common.task("qa", beams=5, min_length=1, max_length=10)
    images = dict(frames=1, image_size=config.model.image_size * 3 // 2, prompt_length=25,
                  target_length=12)
    config.data.streams.image = common.stream("train+val", BATCH, **recipe.AUGMENTED, **images)
    recipe.pace(config, QUESTIONS, BATCH, epochs=8, rate=3e-5, vision_rate=5e-6)
    for split in ("testdev", "test"):
        recipe.evaluate(config, split, split, "val", batch=64, kind=f"image_{split}", **images)
    return config
