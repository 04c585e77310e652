"""The pickle inside a PyTorch checkpoint, run by a machine that can build data and nothing else.

Python's own unpickler calls what the file names. This one has a handler for each of the few
operations that a `state_dict` needs, and calls nothing but what is in the table below, so a file
cannot make anything happen, whatever it holds. What it asks for by another name is never built: an
`Opaque` stands for it, which is refused where weights are read and does no harm beside them, where
checkpoints keep their optimizer, arguments and the like. It keeps what the pickle puts into it: a
table of weights may be of a class of its own, and a TorchScript program is such objects alone.
"""

import pickletools
from collections.abc import Callable, Iterator
from typing import IO, Any, NamedTuple

from mplug2_jax.convert.stored import DTYPES, CheckpointFileError, StoredTensor

STORAGES = {f"{name}Storage": DTYPES[dtype] for name, dtype in (
    ("Double", "float64"), ("Float", "float32"), ("Half", "float16"), ("BFloat16", "bfloat16"),
    ("Long", "int64"), ("Int", "int32"), ("Short", "int16"), ("Char", "int8"), ("Byte", "uint8"),
    ("Bool", "bool"))}
MARK = object()
MAX_OPERATIONS = 20_000_000  # of one pickle; a minute's


class PickleError(ValueError):
    """A pickle that is broken, or wants more than tensors and plain containers."""


class Opaque:
    """In the place of what was not built. Whatever the pickle does to it leaves it opaque.

    Attributes:
      why: it was refused.
      items: what the pickle put into it by keys, were it a dict.
      state: attributes that it was given, by name.
    """

    def __init__(self, why: str):
        self.why = f"refused: {why}"
        self.items: dict[Any, Any] = {}
        self.state: dict[Any, Any] = {}

    def made(self) -> "Opaque":
        """What calling it would make: each time another, for each is filled by itself."""
        made = Opaque("")
        made.why = self.why
        return made


class Global(NamedTuple):
    """A name that the pickle mentions; never imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Storage(NamedTuple):
    """What a tensor lies in: the key of its file in the archive, its dtype and size."""

    key: str
    dtype: Any
    numel: int


ORDERED_DICT = Global("collections", "OrderedDict")
TENSOR = Global("torch._utils", "_rebuild_tensor_v2")
TENSOR_V1 = Global("torch._utils", "_rebuild_tensor")  # of PyTorch 0.3 and older
# A parameter, and one that has attributes, which hold no weights.
PARAMETERS = {Global("torch._utils", "_rebuild_parameter"),
              Global("torch._utils", "_rebuild_parameter_with_state")}
TYPED = Global("torch._tensor", "_rebuild_from_type_v2")  # the same of any tensor: how, class, ...
CLASSES = {Global("torch", "Tensor"), Global("torch.nn.parameter", "Parameter"),
           Global("torch.nn.parameter", "Buffer")}
ALLOWED = {ORDERED_DICT, TENSOR, TENSOR_V1, *PARAMETERS, TYPED, *CLASSES,
           *(Global("torch", name) for name in STORAGES)}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
LITERALS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
            "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE",
            "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_TUPLE": tuple,
    "EMPTY_SET": lambda: Opaque("a set in the place of a tensor")}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
PUTS, GETS = {"PUT", "BINPUT", "LONG_BINPUT"}, {"GET", "BINGET", "LONG_BINGET"}
# Other ways of making an object: with what stands above the mark, or of a registered number.
INSTANCES, EXTENSIONS = {"INST", "OBJ"}, {"EXT1", "EXT2", "EXT4"}

Build = Callable[[Storage, int, tuple[int, ...], tuple[int, ...]], StoredTensor]


def load(file: IO[bytes], build: Build) -> Any:
    """Runs a pickle.

    Args:
      file: at the beginning of the pickle, and then behind its end.
      build: `(storage, offset, shape, strides) -> StoredTensor`.

    Returns:
      Dicts, lists, tuples, numbers, strings, StoredTensors and `Opaque`s.

    Raises:
      PickleError: one line.
    """
    try:
        return Machine(build).run(file)
    except (PickleError, CheckpointFileError):
        raise
    # A broken stream fails in `pickletools` and in the handlers' own stack and memo accesses.
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError) as error:
        raise PickleError(f"broken pickle ({type(error).__name__}: {error})") from None


class Machine:
    """The stack machine: a stack, the positions of marks on it, and the memo."""

    def __init__(self, build: Build):
        self.build = build
        self.left = MAX_OPERATIONS
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self, file: IO[bytes]) -> Any:
        for opcode, argument, _ in pickletools.genops(file):
            name = opcode.name
            if name == "STOP":
                if len(self.stack) != 1:
                    raise PickleError("broken pickle (its end is reached too early)")
                return self.stack.pop()
            self.spend(1)
            self.step(name, argument)
        raise PickleError("broken pickle (it has no end)")

    def spend(self, operations: int) -> None:
        """Counts what was done: a small file can ask for the same large thing again and again."""
        self.left -= operations
        if self.left < 0:
            raise PickleError(f"refused: more than {MAX_OPERATIONS:,} operations, of which a "
                              "checkpoint of tensors has a few dozen for each")

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in LITERALS:
            stack.append(argument)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in EMPTY:
            stack.append(EMPTY[name]())
        elif name in TUPLES:
            items = stack[-TUPLES[name]:]
            if len(items) != TUPLES[name]:
                raise PickleError("broken pickle (the stack is empty)")
            stack[-TUPLES[name]:] = [tuple(items)]
        elif name == "TUPLE":
            stack.append(tuple(self.pop_mark()))
        elif name == "LIST":
            stack.append(self.pop_mark())
        elif name == "DICT":
            stack.append(dict(pairs(self.pop_mark())))
        elif name == "MARK":
            stack.append(MARK)
        elif name in PUTS:
            self.memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in GETS:
            stack.append(self.memo[argument])
        elif name == "DUP":
            stack.append(stack[-1])
        elif name == "POP":
            stack.pop()
        elif name == "POP_MARK":
            self.pop_mark()
        elif name not in ("PROTO", "FRAME") and not self.fill(name) and not self.make(
                name, argument):
            raise PickleError(f"refused: {unknown(name)}")

    def fill(self, name: str) -> bool:
        """An operation that puts something into the object on top of the stack."""
        stack = self.stack
        if name in ("SETITEM", "SETITEMS"):
            items = self.pop_mark() if name == "SETITEMS" else [stack.pop(-2), stack.pop()]
            self.change(dict, lambda x: x.update(pairs(items)))
        elif name in ("APPEND", "APPENDS"):
            items = self.pop_mark() if name == "APPENDS" else [stack.pop()]
            self.change(list, lambda x: x.extend(items))
        elif name == "ADDITEMS":
            self.pop_mark()
            self.change(set, lambda x: None)  # of which none is ever built
        elif name == "BUILD":
            # A state_dict carries attributes (`_metadata`) that hold no weights.
            state = stack.pop()
            self.change(dict, lambda x: None)
            if isinstance(stack[-1], Opaque) and isinstance(state, dict):
                self.spend(len(state))
                stack[-1].state.update(state)
        else:
            return False
        return True

    def make(self, name: str, argument: Any) -> bool:
        """An operation that finds a name, or makes an object."""
        stack = self.stack
        if name == "GLOBAL":
            stack.append(allowed(*argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            stack.append(allowed(module, attribute))
        elif name == "BINPERSID":
            stack.append(storage(stack.pop()))
        elif name == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            stack.append(self.call(function, arguments))
        elif name in ("NEWOBJ", "NEWOBJ_EX"):
            kind, *_ = [stack.pop() for _ in range(2 if name == "NEWOBJ" else 3)][::-1]
            stack.append(kind.made() if isinstance(kind, Opaque) else Opaque(unknown(name)))
        elif name == "FROZENSET":
            self.pop_mark()
            stack.append(EMPTY["EMPTY_SET"]())
        elif name in INSTANCES | EXTENSIONS:
            if name in INSTANCES:
                self.pop_mark()
            stack.append(Opaque(unknown(name)))
        else:
            return False
        return True

    def pop_mark(self) -> list[Any]:
        """What stands above the last mark."""
        items = []
        while (item := self.stack.pop()) is not MARK:
            items.append(item)
        return items[::-1]

    def change(self, kind: type, change: Callable[[Any], None]) -> None:
        """Changes the container on top of the stack."""
        top = self.stack[-1]
        if isinstance(top, Opaque):
            if kind is dict:
                change(top.items)
            return
        if type(top) is not kind:
            raise PickleError(f"refused: the pickle changes an object that is no {kind.__name__}")
        change(top)

    def call(self, function: Any, arguments: Any) -> Any:
        """What calling an allowed name with these arguments builds."""
        if isinstance(function, Opaque):
            return function.made()
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise PickleError(f"refused: the pickle calls a {type(function).__name__}")
        attributes = {TYPED: 3, **dict.fromkeys(PARAMETERS, 1)}.get(function)  # where they begin
        for part in arguments[:attributes]:
            if isinstance(part, Opaque):
                return part.made()
        if function == ORDERED_DICT and not arguments:
            return {}
        if function == ORDERED_DICT and len(arguments) == 1:
            self.spend(len(arguments[0]))
            return {plain_key(key): value for key, value in arguments[0]}
        if function == TYPED and arguments[0] in (TENSOR, *PARAMETERS) and arguments[1] in CLASSES:
            return self.call(arguments[0], arguments[2])
        if function in (TENSOR, TENSOR_V1) and isinstance(arguments[0], Storage):
            _, offset, shape, strides, *_ = arguments
            self.spend(len(shape) + len(strides))
            if not (type(shape) is type(strides) is tuple
                    and all(type(n) is int for n in (offset, *shape, *strides))):
                raise PickleError("a tensor whose shape or strides are not tuples of ints")
            return self.build(*arguments[:4])
        if function in PARAMETERS and isinstance(arguments[0], StoredTensor):
            return arguments[0]
        raise PickleError(f"refused: the pickle calls {function} with unexpected arguments")


def unknown(name: str) -> str:
    """What is said of an operation that builds no tensors."""
    return f"the pickle operation {name} has no place in a checkpoint of tensors"


def pairs(items: list[Any]) -> Iterator[tuple[Any, Any]]:
    """Keys and values that stand one behind the other."""
    return ((plain_key(key), value)
            for key, value in zip(items[::2], items[1::2], strict=True))


def plain_key(key: Any) -> Any:
    """A key of a dict. One that cannot name a tensor is not even hashed: a tuple may be deep."""
    if isinstance(key, (str, int, Opaque)):
        return key
    return Opaque(f"a dict key of type {type(key).__name__}: only str and int")


def allowed(module: str, name: str) -> Global | Opaque:
    """The name, if it is in the table."""
    if not isinstance(module, str) or not isinstance(name, str):
        raise PickleError("broken pickle (a global whose name is no text)")
    found = Global(module, name)
    if found in ALLOWED:
        return found
    shown = ascii(str(found)[:80])[1:-1]
    if module == "torch" and name.endswith("Storage"):
        return Opaque(f"dtype of {shown} is not supported; supported: "
                      + ", ".join(sorted(STORAGES)))
    return Opaque(f"the pickle asks for {shown}, which builds no tensor; nothing was executed")


def shown(value: Any, most: int = 80) -> str:
    """A key or a number as a message has it: short and printable, whatever a file made of it."""
    if isinstance(value, str):
        return ascii(value[:most])[1:-1][:most]
    if isinstance(value, int) and value.bit_length() <= 64:
        return str(value)
    return value.why[:most] if isinstance(value, Opaque) else f"a {type(value).__name__}"


def opaque_part(value: Any, seen: set[int]) -> Opaque | None:
    """The first `Opaque` within a value's containers, which may be deep, and contain themselves.

    Args:
      value: anything that a pickle gave.
      seen: ids of containers that were looked into already; more are added.
    """
    left = [value]
    while left:
        part = left.pop()
        if isinstance(part, Opaque):
            return part
        if isinstance(part, (dict, list, tuple)) and id(part) not in seen:
            seen.add(id(part))
            left += [*part, *part.values()] if isinstance(part, dict) else part
    return None


def storage(identifier: Any) -> Storage | Opaque:
    """A storage of `("storage", type, key, device, numel)`."""
    kind, global_, key, _, numel, *view = identifier
    if isinstance(global_, Opaque):
        return global_
    if kind != "storage" or not isinstance(global_, Global) or global_.name not in STORAGES:
        raise PickleError("a persistent id that is no tensor storage")
    if view not in ([], [None]):
        return Opaque("a storage that is a part of another")
    # Keys are short numbers: they stand in messages.
    if not (isinstance(key, str) and key.isascii() and key.isprintable() and len(key) <= 40
            and type(numel) is int and 0 <= numel < 2 ** 63):
        raise PickleError("a storage whose key or size is not valid")
    return Storage(key, STORAGES[global_.name], numel)
