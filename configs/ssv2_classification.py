"""Something-Something v2; words: a size, a preset.

    python -m data.prepare ssv2 --raw=SSV2 --out=prepared
    python train.py --config=configs/ssv2_classification.py:large --workdir=runs/ssv2 \
        --config.init_from=PRETRAINED
    python eval.py --checkpoint=runs/ssv2 --which=best

Split `val`, 24,777 clips of 174 classes, which the field reports, for the labels of `test` are
hidden; 5,000 of the 168,913 of `train` are held out to tune on. No figure published at hand. Clips
are never mirrored: left and right are what some classes differ by.
"""

from configs import common, recipe

CLIPS = recipe.alike(recipe.rest(168_913))
BATCH = 256
SOURCES = recipe.VIDEO_TASK | {
    "optimizer.learning_rate optimizer.vision_learning_rate":
        "ours: one rate for all, for every layer has its own share of it (layer_decay)",
    "optimizer.warmup_steps": "ours: a hundredth of the run",
    "optimizer.layer_decay": "MAE: layer_decay 0.75",
    "model.stochastic_depth": "ours: MAE has 0.1 (ViT-Base) and 0.2, at a higher rate",
    "task.label_smoothing": "MAE: main_finetune.py, smoothing 0.1",
    "epochs": "ours: VideoMAE has 30, from pretraining without texts",
    "stream.batch_size": "UniFormerV2: exp/*/config.yaml, BATCH_SIZE 256",
    "stream.flip": "VideoMAE: none on this data set, whose classes name sides",
    "evaluation.views": "UniFormerV2: 16 frames x 3 crops x 1 clip",
    "examples": "data: clips of the training split, less 5,000 held out",
}


def get_config(options: str = "large"):
    config = recipe.start(options, "ssv2", new=("heads/classify",))
    classes = f"{config.data.root}/1.0.0/classes.txt"
    config.task = common.task("classification", inputs="visual", classes=classes,
                              label_smoothing=0.1)
    config.model.stochastic_depth = 0.1
    clips = dict(frames=16, image_size=config.model.image_size)
    config.data.streams.video = common.stream("train[rest]", BATCH,
                                              **recipe.VIDEOS | dict(flip=False), **clips)
    recipe.pace(config, CLIPS, BATCH, epochs=20, rate=1e-4, vision_rate=1e-4, warmup=128)
    config.optimizer.layer_decay = 0.75
    recipe.evaluate(config, "ssv2", "val", "train[held_out]", batch=16, limit=recipe.FEW,
                    views=(1, 3), **clips)
    return config
