"""MSR-VTT text-video retrieval, split 1k-A: `:tiny`, `:base` or `:large` (the default).

    python -m data.prepare msrvtt_1ka --raw=MSRVTT --out=prepared
    python train.py --config=configs/msrvtt_retrieval.py:large --workdir=runs/msrvtt_retrieval \
        --config.init_from=PRETRAINED
    python eval.py --checkpoint=runs/msrvtt_retrieval

Split `test`, 1,000 clips with a sentence each; `train` has 9,000, and there is no split to tune on.
Paper, text to video: R@1 53.1, R@5 77.6, R@10 84.7; zero-shot 47.1 and R@10 79.0. The recipe is the
release's for other tasks on this dataset; epochs, batch and 128 reranked are a guess.
"""

from configs import common, recipe

CAPTIONS = 9_000 * 20  # of the training split
BATCH = 128


def get_config(size: str = "large"):
    config = recipe.start(size, "msrvtt_1ka", new=("heads/vtc", "heads/vtm"))
    config.task = common.task("retrieval", rerank=128)
    clips = dict(frames=16, image_size=config.model.image_size, text_length=25)
    config.data.streams.video = common.stream("train", BATCH, **recipe.AUGMENTED, **clips)
    recipe.pace(config, CAPTIONS, BATCH, epochs=5)
    recipe.evaluate(config, "video_retrieval", "test", "test", **clips)
    return config
