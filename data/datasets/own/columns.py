"""Which column of a table says what: named by the user, or known by its name."""

import re
from collections.abc import Collection, Iterable, Mapping

from mplug2_jax.contracts.errors import DataError

_MOST = 30  # columns that a message names
NONE = "-"  # in place of a column's name: there is none, whatever the columns are called
# By role the names it is known by, without capitals and marks; those of a line before the next.
KNOWN: dict[str, tuple[str, ...]] = {
    "media": ("media medium mediapath path file filename filepath image img picture photo "
              "imagepath imgpath imagefile imagename imgname video clip videopath clippath "
              "videofile videoname clipname images videos frames",
              "url uri imageurl videourl link",
              "imageid imgid videoid vid clipid mediaid",
              "id key"),
    "caption": ("caption captions", "text texts sentence sentences description descriptions",
                "alttext title"),
    "question": ("question questions", "query"),
    "answer": ("answer answers", "multiplechoiceanswer"),
    "label": ("label labels", "class classname", "category categories", "target"),
    "phrase": ("phrase phrases expression expressions referringexpression",),
    "box": ("box boxes bbox bboxes boundingbox boundingboxes",),
    "start": ("start starttime startsecond startseconds timestart begin", "starts"),
    "end": ("end endtime endsecond endseconds timeend", "ends"),
    "split": ("split", "subset partition set"),
    "width": ("width imagewidth",),
    "height": ("height imageheight",),
    "question_id": ("questionid qid",),
}
GIVEN = tuple(role for role in KNOWN if role not in ("width", "height", "question_id"))
SAYING = ("caption", "question", "label", "box")  # a table has one of them


def plain(name: str) -> str:
    """A column's name without capitals, blanks and marks."""
    return re.sub(r"[\W_]+", "", name.casefold())


def find(table: str, columns: list[str], given: Mapping[str, str],
         embedded: Collection[str] = ()) -> dict[str, tuple[str, ...]]:
    """The column of every role that a table has: {role: names}, several of a box in four.

    Args:
        table: its name, for errors.
        columns: their names.
        given: by role what the user said: a name, names with commas between them, `NONE`, or "".
        embedded: those that hold media themselves, which are preferred to names of media.

    Raises:
        DataError: a named column is not there, or several could be meant, or none says anything.
    """
    found: dict[str, tuple[str, ...]] = {}
    taken: set[str] = set()
    for role in KNOWN:
        said = given.get(role, "")
        if said and said != NONE:
            found[role] = _named(table, columns, role, said)
            taken.update(found[role])
    for role in KNOWN:
        if not given.get(role):
            name = _known(table, [name for name in columns if name not in taken], role,
                          embedded if role == "media" else ())
            if name:
                found[role] = (name,)
    _check(table, columns, found)
    return found


def _named(table: str, columns: list[str], role: str, said: str) -> tuple[str, ...]:
    if said in columns:
        return (said,)
    names = []
    for one in (part.strip() for part in said.split(",")):
        like = [name for name in columns if plain(name) == plain(one)]
        if one in columns or _nested(one, columns):
            names.append(one)
        elif len(like) == 1:
            names.append(like[0])
        else:
            raise DataError(f"{table} has no column {one!r} (--{role}): it has "
                            f"{listed(columns)}; name one with --{role}=COLUMN")
    if len(names) not in ((1, 4) if role == "box" else (1,)):
        expected = "one column, or four" if role == "box" else "one column"
        raise DataError(f"--{role}={said}: expected {expected}; {table} has {listed(columns)}")
    return tuple(names)


def _nested(name: str, columns: list[str]) -> bool:
    """Whether it is a part of a column, such as `objects.bbox`."""
    return "." in name and name.partition(".")[0] in columns


def _known(table: str, columns: list[str], role: str, embedded: Collection[str]) -> str:
    tiers = [[name for name in columns if plain(name) in names.split()] for names in KNOWN[role]]
    held = [name for name in columns if name in embedded]  # of which one may be a checksum
    tiers = [[name for name in tier if name in held] for tier in tiers] + tiers + [held]
    like = next((tier for tier in tiers if tier), [])
    if len(like) > 1:
        flag = f"name one with --{role}=COLUMN" if role in GIVEN else "rename one"
        raise DataError(f"{table}: the columns {listed(like)} could each be the {role}; {flag}"
                        + (f", or none with --{role}={NONE}" if role in GIVEN[1:] else ""))
    return like[0] if like else ""


def _check(table: str, columns: list[str], found: Mapping[str, tuple[str, ...]]) -> None:
    has = f"it has {listed(columns)}"
    if "media" not in found:
        raise DataError(f"{table} has no column that is known to name media: {has}; name it with "
                        "--media=COLUMN")
    if not any(role in found for role in SAYING):
        flags = ", ".join(f"--{role}" for role in SAYING)
        raise DataError(f"{table} has no column that says something of the media: {has}; name one "
                        f"with {flags}")
    if "question" in found and "answer" not in found:
        raise DataError(f"{table} has questions ({found['question'][0]}), and no column that is "
                        f"known to hold answers: {has}; name it with --answer=COLUMN")
    if "answer" in found and "question" not in found:
        raise DataError(f"{table} has answers ({found['answer'][0]}), and no column that is known "
                        f"to hold questions: {has}; name it with --question=COLUMN, or a class "
                        f"with --label={found['answer'][0]} --answer={NONE}")
    if "box" in found and not {"phrase", "caption", "label"} & found.keys():
        raise DataError(f"{table} has boxes, and no column that says what is in them: {has}; name "
                        "it with --phrase=COLUMN")


def listed(names: Iterable[str]) -> str:
    several = [f"{name[:57]!r}..." if len(name) > 60 else repr(name) for name in names]
    more = f" and {len(several) - _MOST} more" if len(several) > _MOST else ""
    return (", ".join(several[:_MOST]) or "none") + more


def value(row: Mapping, name: str):
    """What a row has in a column, or in a part of one; of a list of dicts a list of that part."""
    if name in row:
        return row[name]
    found = row
    for part in name.split("."):
        if isinstance(found, list):
            found = [one.get(part) if isinstance(one, Mapping) else None for one in found]
        else:
            found = found.get(part) if isinstance(found, Mapping) else None
    return found
