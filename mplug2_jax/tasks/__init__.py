"""Tasks: each composes the modules it needs, and says its loss, its predictions and its scores."""

from mplug2_jax.tasks.base import Task
from mplug2_jax.tasks.captioning import Captioning
from mplug2_jax.tasks.classification import Classification
from mplug2_jax.tasks.grounding import Grounding
from mplug2_jax.tasks.instructions import Instructions
from mplug2_jax.tasks.knn import Knn
from mplug2_jax.tasks.pretrain import Pretrain
from mplug2_jax.tasks.qa import QuestionAnswering
from mplug2_jax.tasks.retrieval import Retrieval
from mplug2_jax.tasks.zero_shot import ZeroShot

TASKS: dict[str, type[Task]] = {
    "pretrain": Pretrain,
    "captioning": Captioning,
    "qa": QuestionAnswering,
    "retrieval": Retrieval,
    "classification": Classification,
    "grounding": Grounding,
    "instructions": Instructions,
    "zero_shot": ZeroShot,
    "knn": Knn,
}
