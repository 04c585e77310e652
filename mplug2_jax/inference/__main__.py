"""Says what images and videos show: captions, answers, embeddings, the best matches of a text.

    python -m mplug2_jax.inference caption clip.mp4 --checkpoint=runs/demo
    python -m mplug2_jax.inference qa clip.mp4 "what is he doing?" --checkpoint=runs/demo
    python -m mplug2_jax.inference retrieve "a red three moving left" clips --checkpoint=runs/demo
    python -m mplug2_jax.inference embed clips --checkpoint=runs/demo --out=embedded
    python -m mplug2_jax.inference embed_text "a red three moving left" --checkpoint=runs/demo

Files may be images, videos, folders and tar files of them, and `.txt` lists of paths, mixed; a
list's relative paths are of its own folder. Prints one line of JSON each; a file that cannot be
read gets a line with its `error` instead. With `--out`, what is done is kept, and the same command
goes on.
"""

from mplug2_jax.inference.command import command

if __name__ == "__main__":
    command()
