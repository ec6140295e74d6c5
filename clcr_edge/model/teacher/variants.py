"""The ablations of CLCR, by name: each changes one thing, and this table says what (paper: section "ablation"; switches: ours).

The paper names its variants without saying how it built them; `docs/choices.md` has what each means here. Every variant keeps
the encoders, the widths and the head, so that a difference in the figures is the difference of the part that was changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Levels(Enum):
    """Which level features meet at which level of the exchange."""

    OWN = "own"  # every modality brings level l to level l
    DEEP = "deep"  # every level gets the deep features: no hierarchy
    SHUFFLED = "shuffled"  # modality m brings level (l + m) mod 3: no two neighbours meet on the same level


class Exchange(Enum):
    """How many tokens take part in IntraCED's exchange."""

    BUDGETED = "budgeted"  # the capped simplex decides
    DENSE = "dense"  # all, fully
    NONE = "none"  # none: no modality reads another's tokens


class Aggregation(Enum):
    """How the pooled streams become a prediction."""

    INTER_CAD = "inter_cad"  # anchors, level weights, modality weights, gates
    PLAIN = "plain"  # the same sums with even weights and open gates
    LATE = "late"  # no fusion: the mean of the modalities' own predictions


@dataclass(frozen=True)
class Variant:
    """says: one line for a table. regularisers: whether L_Intra and L_Inter count."""

    says: str
    levels: Levels = Levels.OWN
    exchange: Exchange = Exchange.BUDGETED
    aggregation: Aggregation = Aggregation.INTER_CAD
    regularisers: bool = True


VARIANTS: dict[str, Variant] = {
    "full": Variant("CLCR as the paper describes it"),
    "no-hierarchy": Variant("all three levels read the deep features", levels=Levels.DEEP),
    "no-intraced": Variant("no token of one modality reaches another's pooled streams", exchange=Exchange.NONE),
    "no-intercad": Variant("levels and modalities weigh the same, every gate is open", aggregation=Aggregation.PLAIN),
    "shuffled-levels": Variant("different levels of the modalities meet in the exchange", levels=Levels.SHUFFLED),
    "no-regularisers": Variant("only the task loss", regularisers=False),
    "dense-exchange": Variant("every token takes part fully: no budget", exchange=Exchange.DENSE),
    "late-fusion": Variant(
        "a plain baseline: the mean of one prediction per modality", aggregation=Aggregation.LATE, regularisers=False
    ),
}
