from configs import common


def get_config(task="retrieval"):
    config = common.base("tiny")
    config.model.update(dict(vocab_size=352, universal_layers=1, fusion_layers=1))
    config.task = common.task(task, modality="spectrogram")
    config.data.streams.sound = common.stream("train", 16, text_length=8)
    config.evals.sound = common.evaluation(task, "test", 16, "test", "sound",
                                           dict(modality="spectrogram"), text_length=8)
    config.optimizer.update(dict(steps=30, warmup_steps=5, learning_rate=1e-3))
    return config
