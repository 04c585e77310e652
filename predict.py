"""Says what images and videos show: captions, answers, embeddings, the best matches of a text.

    python predict.py caption clip.mp4 --checkpoint=runs/demo
    python predict.py qa clip.mp4 "what is he doing?" --checkpoint=runs/demo
    python predict.py retrieve "a red three moving left" clips/*.mp4 --checkpoint=runs/demo
    python predict.py embed clips --checkpoint=runs/demo --out=embedded
    python predict.py embed_text "a red three moving left" --checkpoint=runs/demo

It is `python -m mplug2_jax.inference`, which the package has without the checkout, too.
"""

from mplug2_jax.inference.command import command

if __name__ == "__main__":
    command()
