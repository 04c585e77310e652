"""Oxford Flowers 102: photographs of flowers that are common in the United Kingdom."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import scipy.io

from data.datasets.raw import Dataset, Entry, RawFolder
from mplug2_jax.contracts.errors import DataError

# The files number the classes, from 1 on; these are their names, as TFDS and CLIP have them.
NAMES = tuple(name.strip() for name in """
pink primrose, hard-leaved pocket orchid, canterbury bells, sweet pea, english marigold, tiger lily,
moon orchid, bird of paradise, monkshood, globe thistle, snapdragon, colt's foot, king protea,
spear thistle, yellow iris, globe-flower, purple coneflower, peruvian lily, balloon flower,
giant white arum lily, fire lily, pincushion flower, fritillary, red ginger, grape hyacinth,
corn poppy, prince of wales feathers, stemless gentian, artichoke, sweet william, carnation,
garden phlox, love in the mist, mexican aster, alpine sea holly, ruby-lipped cattleya, cape flower,
great masterwort, siam tulip, lenten rose, barbeton daisy, daffodil, sword lily, poinsettia,
bolero deep blue, wallflower, marigold, buttercup, oxeye daisy, common dandelion, petunia,
wild pansy, primula, sunflower, pelargonium, bishop of llandaff, gaura, geranium, orange dahlia,
pink-yellow dahlia?, cautleya spicata, japanese anemone, black-eyed susan, silverbush,
californian poppy, osteospermum, spring crocus, bearded iris, windflower, tree poppy, gazania,
azalea, water lily, rose, thorn apple, morning glory, passion flower, lotus, toad lily, anthurium,
frangipani, clematis, hibiscus, columbine, desert-rose, tree mallow, magnolia, cyclamen, watercress,
canna lily, hippeastrum, bee balm, ball moss, foxglove, bougainvillea, camellia, mallow,
mexican petunia, bromelia, blanket flower, trumpet creeper, blackberry lily
""".replace("\n", " ").split(","))
_SPLITS = {"train": "trnid", "val": "valid", "test": "tstid"}


def read(raw: RawFolder) -> dict[str, Iterable[Entry]]:
    """`jpg/image_00001.jpg` ..., their classes in `imagelabels.mat`, the splits in `setid.mat`."""
    path = raw.file("imagelabels.mat")
    labels = _numbers(path, "labels")
    wrong = [label for label in labels if not 1 <= label <= len(NAMES)]
    if wrong:
        raise DataError(f"{path} has a class {wrong[0]}, not within 1..{len(NAMES)}")
    places = [f"{parent}/jpg".strip("/") for parent in raw.folders]

    def entries(numbers: list[int]) -> Iterator[Entry]:
        for number in numbers:
            if not 1 <= number <= len(labels):
                raise DataError(f"{path} has no class of image {number}, but {len(labels)} classes")
            name = f"image_{number:05d}"
            yield Entry(name, "image", raw.image(name, *places),
                        {"label": NAMES[labels[number - 1] - 1]})

    sets = raw.file("setid.mat")
    return {split: entries(_numbers(sets, key)) for split, key in _SPLITS.items()}


def _numbers(path: Path, key: str) -> list[int]:
    """A row of whole numbers of a MATLAB file."""
    try:
        found = scipy.io.loadmat(path, variable_names=[key])
        return [int(number) for number in found[key].ravel()]
    # Damaged files raise nearly anything.
    except Exception as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} is no MATLAB file with {key!r}: {reason}") from error


DATASETS = (
    Dataset("flowers102", "Oxford Flowers 102", "image", read,
            {"train": {"records": 1020}, "val": {"records": 1020}, "test": {"records": 6149}}),
)
