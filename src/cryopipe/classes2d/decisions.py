"""Which classes are kept: the rules, and the user's decisions that overrule them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from cryopipe.config.classes2d import SelectClasses2d
from cryopipe.errors import InputError
from cryopipe.imaging.statistics import robust_sd

FERRITIN = "iron-loaded core"
#: A class is judged by its resolution if it has at least this share of the particles of the mean class. The signal-to-noise
#: ratio of an average grows with its particles. With half of them, a class of 24 Å has 30 Å. With a fifth of them, it has 60 Å
#: (measured and expected). Without this limit, rare views would be junk only because they are rare.
_JUDGED_BY_RESOLUTION = 0.5
#: It also needs at least this number of particles: averages of 9 to 18 good particles of a D2 assembly have 22 to 49 Å.
_LEAST_JUDGED = 20


class ClassDecision(BaseModel):
    """The user's choice, ``config/decisions/<run.name>/classes2d.yaml``: class numbers (from 1) to keep and to drop.

    ``classes_sha256`` (copied from selection.yaml) states to which classification the numbers belong.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    keep: list[int] = []
    drop: list[int] = []
    decided_by: str = "user"
    classes_sha256: str | None = None


@dataclass(frozen=True)
class ClassVerdict:
    """Whether a class is kept, why, and who decided it (``rule`` or the name of the user)."""

    keep: bool
    reason: str
    decided_by: str


def read_decision(path: Path, *, classes: int, classes_sha256: str) -> ClassDecision:
    """Read and check a decision file.

    Raises
    ------
    InputError
        The file is not a decision file, it has classes that do not exist, it has a class in both lists, or it belongs to
        another classification.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        decision = ClassDecision.model_validate(content)
    except (yaml.YAMLError, ValidationError) as error:
        raise InputError(
            f"{path}: this is not a decision on classes ({' '.join(str(error).split())}). "
            "Give the lists keep and drop of class numbers."
        ) from None
    wrong = sorted(c for c in {*decision.keep, *decision.drop} if not 1 <= c <= classes)
    if wrong:
        raise InputError(f"{path}: class {wrong[0]} does not exist; classes are numbered 1 to {classes}.")
    both = sorted(set(decision.keep) & set(decision.drop))
    if both:
        raise InputError(f"{path}: class {both[0]} is in keep and in drop. Leave it in one of them.")
    if decision.classes_sha256 is not None and decision.classes_sha256 != classes_sha256:
        raise InputError(
            f"{path}: the decision was made for other class averages (classes_sha256 differs). Look at the new averages and "
            "decide again, or remove the file."
        )
    return decision


def judge_classes(features: pd.DataFrame, params: SelectClasses2d) -> list[ClassVerdict]:
    """Apply the rules to the features of the classes.

    Parameters
    ----------
    features : DataFrame
        One row per class: crpParticles, rlnEstimatedResolution, crpCoreRatio, crpSignal, crpEdgeScore, crpECA.
    """
    members = features["crpParticles"].to_numpy(dtype=np.float64)
    occupied = features[members > 0]
    resolution_limit = max(
        params.max_resolution_A,
        params.max_resolution_factor * float(occupied["rlnEstimatedResolution"].median() if len(occupied) else 0),
    )
    ratio = occupied["crpCoreRatio"].dropna().to_numpy(dtype=np.float64)
    median, spread = (float(np.median(ratio)), robust_sd(ratio)) if len(ratio) else (0.0, 0.0)
    core_limit = max(params.core_threshold, median + 3.0 * spread)
    verdicts = []
    for row in features.to_dict("records"):
        reasons = []
        if row["crpParticles"] == 0:
            verdicts.append(ClassVerdict(False, "empty", "rule"))
            continue
        if row["crpParticles"] < params.min_class_fraction * members.mean():
            reasons.append(f"only {row['crpParticles']} particles")
        many = row["crpParticles"] >= max(_JUDGED_BY_RESOLUTION * members.mean(), _LEAST_JUDGED)
        if many and row["rlnEstimatedResolution"] > resolution_limit:
            reasons.append(f"resolution {row['rlnEstimatedResolution']:.1f} Å worse than {resolution_limit:.1f} Å")
        if row["crpSignal"] < params.min_signal:
            reasons.append(f"contrast {row['crpSignal']:.1f} below {params.min_signal:g}")
        if row["crpEdgeScore"] > params.max_edge_score:
            reasons.append(f"edge score {row['crpEdgeScore']:.2f} above {params.max_edge_score:g}")
        if row["crpECA"] > max(2.0, params.max_eca_fraction * len(features)):
            reasons.append(f"particles spread over {row['crpECA']:.1f} classes")
        # last, so that a class that is junk for another reason is not called ferritin
        if params.remove_ferritin and row["crpCoreRatio"] > core_limit:
            reasons.append(f"{FERRITIN}: core ratio {row['crpCoreRatio']:.2f} above {core_limit:.2f}")
        verdicts.append(ClassVerdict(not reasons, "; ".join(reasons), "rule"))
    return verdicts


def overrule(verdicts: list[ClassVerdict], decision: ClassDecision | None) -> list[ClassVerdict]:
    """Return the verdicts after applying the user's lists. The reason from the rule is kept."""
    if decision is None:
        return verdicts
    result = list(verdicts)
    for number in decision.keep:
        result[number - 1] = ClassVerdict(True, verdicts[number - 1].reason, decision.decided_by)
    for number in decision.drop:
        reason = verdicts[number - 1].reason or f"dropped by {decision.decided_by}"
        result[number - 1] = ClassVerdict(False, reason, decision.decided_by)
    return result
