"""Intervals, paired differences, verdicts."""

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from lib.core.errors import InputError
from lib.papers.mvfnet.tables import PAPER as MVFNET
from lib.papers.siamese.tables import PAPER as SIAMESE
from lib.papers.siamese.tables import ladder
from lib.report.claims import (
    AGAINST,
    FOR,
    OPEN,
    REFUTED,
    REPLICATED,
    SAME,
    UNJUDGED,
    UNMEASURED,
    agreement,
    combine,
    compare,
    judge,
    verdict,
)
from lib.report.errors import load_errors, matrix, paired
from lib.report.paper import Part
from lib.report.reported import load_claims, load_reported, reported_value
from lib.report.stats import Bootstrap, Interval, holm, interval_of_mean, random_effects, standardised, t_interval
from lib.report.tables import claims_markdown
from tests.report.fixtures import LEVELS, MVFNET_LEVELS, cells, write_errors, write_mvfnet_errors

BOOT = Bootstrap(replicates=2000)


@pytest.fixture(scope="module")
def errors(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    folder = tmp_path_factory.mktemp("errors")
    write_errors(folder)
    return load_errors(folder)


def frame(**values: list[list[float]]) -> pd.DataFrame:
    """A long error table from {method: seeds x subjects}."""
    rows = [
        (method, seed, f"p{i}", "", "true_p2p", v)
        for method, table in values.items()
        for seed, row in enumerate(table)
        for i, v in enumerate(row)
    ]
    return pd.DataFrame(rows, columns=["method", "seed", "subject", "condition", "metric", "value"])


def test_interval_has_the_textbook_width_and_coverage() -> None:
    rng = np.random.default_rng(0)
    hits, widths = 0, []
    for _ in range(300):
        sample = rng.normal(1.0, 2.0, (1, 50))
        interval = BOOT(sample)
        assert interval.mean == pytest.approx(sample.mean())
        hits += interval.low <= 1.0 <= interval.high
        widths.append(interval.high - interval.low)
    assert 0.90 < hits / 300 < 0.98
    assert np.mean(widths) == pytest.approx(2 * 1.96 * 2.0 / np.sqrt(50), rel=0.06)


def test_interval_is_repeatable_and_knows_seeds() -> None:
    subjects = np.random.default_rng(0).normal(0, 0.1, 60)
    values = np.stack([subjects - 1.0, subjects + 1.0])  # runs differ far more than subjects
    assert BOOT(values) == BOOT(values)
    wide, narrow = BOOT(values), BOOT(values, seeds=False)
    assert wide.high - wide.low > 10 * (narrow.high - narrow.low)
    constant = BOOT(np.full((2, 9), 0.7))
    assert constant.low == pytest.approx(0.7) == constant.high


def tables_of(runs: int, people: int, spread: float, subjects: float, rest: float, times: int = 3000) -> np.ndarray:
    """Paired differences (times, runs, people) of true mean 0 with these standard deviations in mm."""
    rng = np.random.default_rng([runs, people, round(1e3 * spread), round(1e3 * subjects), round(1e3 * rest)])
    parts = ((spread, (times, runs, 1)), (subjects, (times, 1, people)), (rest, (times, runs, people)))
    return sum(scale * rng.normal(size=shape) for scale, shape in parts)


@pytest.mark.parametrize("runs", [3, 5, 8])
def test_t_interval_covers_what_it_says(runs: int) -> None:
    """Of every spread between runs that was seen or is likely, with subjects that differ much or little."""
    for people, spread, (subjects, rest) in product(
        (50, 120), (0.01, 0.03, 0.05), ((0.1, 0.05), (0.1, 0.2), (0.3, 0.1))
    ):
        mean, error, df = random_effects(0.1 + tables_of(runs, people, spread, subjects, rest))
        covered = np.mean(np.abs(mean - 0.1) < error * stats.t.ppf(0.975, df))
        assert 0.93 < covered < 0.97, (people, spread, subjects, rest)


def test_t_interval_where_the_textbook_knows_it() -> None:
    """One run: Student's over subjects. Subjects alike in all runs: Student's over runs. No spread at all: a point."""
    sample = np.random.default_rng(0).normal(1.0, 2.0, 30)
    for values in (sample[None], np.repeat(sample[:, None], 40, axis=1)):
        found = t_interval(values)
        low, high = stats.t.interval(0.95, 29, sample.mean(), stats.sem(sample))
        assert (found.low, found.high, found.df) == pytest.approx((low, high, 29))
        assert found.p_below(0.5) == pytest.approx(stats.ttest_1samp(sample, 0.5, alternative="less").pvalue)
    point = t_interval(np.full((3, 9), 0.7))
    assert (point.low, point.high, point.p_below(1), point.p_below(0)) == pytest.approx((0.7, 0.7, 0, 1))
    few = np.random.default_rng(0).normal(size=(2, 9))
    assert interval_of_mean(few, BOOT) == BOOT(few, seeds=False)
    assert interval_of_mean(np.vstack([few, few]), BOOT).df > 0


def test_holm_by_hand() -> None:
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    assert holm([]).shape == (0,) and holm([0.6, 0.7]).tolist() == [1, 1]


def test_standardised_effect() -> None:
    values = np.array([[1.0, 2.0, 3.0], [3.0, 2.0, 1.0]])
    assert np.isnan(standardised(values))  # seeds average to the same for all subjects
    assert standardised(np.array([[1.0, 2.0, 3.0]])) == pytest.approx(2.0)
    assert np.isnan(standardised(np.array([[1.0]])))


def test_pairing_by_seed_and_subject() -> None:
    table = frame(a=[[1.0, 2.0, 3.0], [2.0, 3.0, 4.0]], b=[[5.0, 5.0], [6.0, 8.0]], c=[[10.0, 20.0, 30.0]])
    np.testing.assert_allclose(paired(table, "a", "b", "true_p2p"), [[4, 3], [4, 5]])  # common subjects only
    np.testing.assert_allclose(paired(table, "a", "c", "true_p2p"), [[9, 18, 27], [8, 17, 26]])
    np.testing.assert_allclose(paired(table, "c", "a", "true_p2p"), [[-9, -18, -27], [-8, -17, -26]])
    assert paired(table, "a", "nobody", "true_p2p").empty


def test_a_subject_that_one_seed_lacks_is_left_out_for_that_method() -> None:
    table = frame(a=[[1.0, 2.0], [1.0, 2.0, 3.0]])
    assert list(matrix(table, "a", "true_p2p").columns) == ["p0", "p1"]


def test_seeds_without_overlap_compare_by_their_means() -> None:
    table = frame(a=[[1.0, 2.0], [3.0, 4.0]])
    other = frame(b=[[5.0, 5.0], [7.0, 7.0]])
    other["seed"] += 10
    np.testing.assert_allclose(paired(pd.concat([table, other]), "a", "b", "true_p2p"), [[4, 3]])


@pytest.mark.parametrize(
    ("low", "high", "kind", "margin", "expected"),
    [
        (0.1, 0.2, "less", 0, REPLICATED),
        (-0.2, -0.1, "less", 0, REFUTED),
        (-0.1, 0.1, "less", 0, OPEN),
        (0.0, 0.1, "less", 0, OPEN),
        (-0.1, 0.0, "less", 0, REFUTED),
        (-0.01, 0.01, "less", 0.02, SAME),
        (0.01, 0.015, "less", 0.02, SAME),  # surely a gain, and surely too little to matter
        (0.01, 0.03, "less", 0.02, REPLICATED),
        (-0.03, -0.01, "less", 0.02, REFUTED),
        (-0.03, 0.01, "less", 0.02, OPEN),
        *((-0.04, 0.04, kind, 0.05, REPLICATED) for kind in ("little", "no worse")),
        *((-0.06, 0.04, kind, 0.05, OPEN) for kind in ("little", "no worse")),
        *((sign * 0.07 - 0.01, sign * 0.07 + 0.01, "little", 0.05, REFUTED) for sign in (-1, 1)),  # helps much, harms
    ],
)
def test_verdicts(low: float, high: float, kind: str, margin: float, expected: str) -> None:
    found = Interval((low + high) / 2, low, high)
    assert verdict(found, kind, margin) == expected
    assert verdict(replace(found, high=float("nan")), kind, margin) == UNMEASURED
    assert verdict(found, kind, float("nan")) == UNMEASURED


def test_a_claim_needs_all_its_parts() -> None:
    assert combine([REPLICATED, REPLICATED]) == REPLICATED
    assert combine([REPLICATED, OPEN]) == OPEN
    assert combine([OPEN, REFUTED, REPLICATED]) == REFUTED
    assert combine([REPLICATED, SAME, OPEN]) == SAME
    assert combine([FOR, AGAINST, REPLICATED]) == AGAINST
    assert combine([OPEN, UNMEASURED]) == UNMEASURED
    assert combine([]) == UNMEASURED


def test_known_differences_give_the_known_verdicts(errors: pd.DataFrame) -> None:
    claims = judge(errors, SIAMESE, SIAMESE.claim_metrics, BOOT)
    assert set(claims["metric"]) == {"true_p2p", "armse"}
    whole = claims.drop_duplicates(["claim", "metric"]).set_index(["claim", "metric"])["claim_verdict"]
    for claim in ("S1", "S2", "S3", "S4", "S5"):
        assert (whole[claim] == REPLICATED).all(), claim
    assert (whole["S6"] == OPEN).all()
    s2 = claims[(claims["claim"] == "S2") & (claims["metric"] == "true_p2p")].iloc[0]
    assert s2["difference"] == pytest.approx(0.15, abs=0.02)
    assert s2["reported"] == pytest.approx(0.11)
    assert s2["relative"] == pytest.approx(10.0, abs=1.0)
    assert s2["wins"] > 95 and s2["subjects"] == 40 and s2["seeds"] == 3
    assert max(s2["low"], s2["boot_low"]) < s2["difference"] < min(s2["high"], s2["boot_high"])
    assert s2["p_against"] > 0.99


def test_fewer_than_three_runs_of_either_side_give_a_direction_only(errors: pd.DataFrame) -> None:
    few = errors[(errors["method"] != "sv_frontal") | (errors["seed"] < 2)]
    for seeds in (1, 2, 3):
        found = judge(few[few["seed"] < seeds], SIAMESE, ["armse"], BOOT).set_index("claim")
        assert set(found.loc["S2", ["seeds"]]) == {min(seeds, 2)} and found.loc["S2", "verdict"] == FOR
        assert (found.loc["S4", "verdict"] == REPLICATED) == (seeds == 3)
    part = Part("mean_face", "sv_frontal")
    assert compare(few, part, "armse", SIAMESE, BOOT).verdict == AGAINST
    bounds = compare(errors, Part("oracle", "mean_face"), "armse", SIAMESE, BOOT)
    assert (bounds.seeds, bounds.verdict) == (0, REPLICATED)  # nothing was trained: subjects alone decide


def test_one_of_many_comparisons_speaks_against_a_claim_only_after_holm() -> None:
    """Twelve peers are far behind, one is ahead by two standard errors: alone it would suffice."""
    rng = np.random.default_rng(0)
    noise = tables_of(5, 50, 0, 0.1, 0.05, 1)[0]
    noise -= noise.mean()
    error = t_interval(noise).error
    peers = {f"peer{i}": (noise + 1 + rng.normal(0, 0.01, (5, 50))).tolist() for i in range(12)}
    table = frame(own=np.full((5, 50), 1.0).tolist(), ahead=(1 - noise - 2.3 * error).tolist(), **peers)
    claim = replace(
        SIAMESE, parts={"X": tuple(Part("own", key) for key in ("ahead", *peers)), "Y": (Part("own", "ahead"),)}
    )
    found = judge(table, claim, ["true_p2p"], BOOT).set_index(["claim", "worse"])
    assert found.loc[("Y", "ahead"), "claim_verdict"] == REFUTED and found.loc[("X", "ahead"), "high"] < 0
    assert found.loc[("X", "ahead"), "verdict"] == found.loc[("X", "ahead"), "claim_verdict"] == OPEN
    assert found.loc[("X", "ahead"), "p_against"] == pytest.approx(13 * found.loc[("Y", "ahead"), "p_against"])


def test_verdicts_of_two_sets_of_runs_are_compared(tmp_path: Path) -> None:
    write_errors(tmp_path, n=20, seeds=tuple(range(6)))
    errors = load_errors(tmp_path)
    metrics = list(SIAMESE.claim_metrics)
    share, turned = agreement(errors, SIAMESE, metrics, (0, 1, 2), (3, 4, 5))
    assert share > 0.9 and "S2" not in set(turned["claim"])
    errors.loc[(errors["method"] == "sv_mean") & (errors["seed"] > 2), "value"] *= 2
    share, turned = agreement(errors, SIAMESE, metrics, (0, 1, 2), (3, 4, 5))
    s2 = turned[turned["claim"] == "S2"]
    assert share < 0.95 and (s2["verdict_first"] + s2["verdict_second"]).tolist() == 2 * [REPLICATED + REFUTED]


def test_a_control_is_judged_and_has_no_say(errors: pd.DataFrame) -> None:
    one = replace(SIAMESE, parts={"S2": (Part("sv_mean", "sv_frontal"), Part("mv_front3", "sv_mean", control=True))})
    claims = judge(errors, one, ["armse"], BOOT)
    assert claims["control"].tolist() == [False, True]
    assert claims["verdict"].tolist() == [REPLICATED, REFUTED] and set(claims["claim_verdict"]) == {REPLICATED}
    assert cells(claims_markdown(claims, one), "S2, control")[-1] == REFUTED


def mvfnet_verdicts(folder: Path, **levels: float) -> dict[str, str]:
    write_mvfnet_errors(folder, MVFNET_LEVELS | levels)
    claims = judge(load_errors(folder), MVFNET, ["micc_p2plane"], BOOT)
    return dict(zip(claims["claim"], claims["claim_verdict"], strict=True))


def test_mvfnet_claims_follow_the_known_differences(tmp_path: Path) -> None:
    found = mvfnet_verdicts(tmp_path)
    assert found == dict.fromkeys(("V1", "V2", "V3", "V4", "V5"), REPLICATED) | {"V6": UNMEASURED}
    assert mvfnet_verdicts(tmp_path, v2=1.15)["V2"] == REFUTED  # it helps a lot
    assert mvfnet_verdicts(tmp_path, v2=1.15)["V3"] == REFUTED
    assert mvfnet_verdicts(tmp_path, v2=1.4)["V2"] == REFUTED  # it even harms
    assert mvfnet_verdicts(tmp_path, v2=2.4)["V2"] == REFUTED  # nor does a network that learnt nothing pass
    assert mvfnet_verdicts(tmp_path, genova_wpool=1.0)["V5"] == REFUTED  # one peer ahead suffices
    assert mvfnet_verdicts(tmp_path, v3=1.1)["V4"] == SAME


def test_each_condition_is_judged_by_itself(tmp_path: Path) -> None:
    write_mvfnet_errors(tmp_path)
    errors = load_errors(tmp_path)
    swap = (errors["condition"] == "IND") & (errors["method"] == "v4")
    errors.loc[swap, "value"] *= 1.4
    claims = judge(errors, MVFNET, ["true_p2p"], BOOT).set_index(["claim", "condition"])["verdict"]
    assert claims["V1"].to_dict() == {"INC": REPLICATED, "IND": REFUTED, "Multi-PIE": REPLICATED}
    part = compare(errors, Part("v4", "v1", "IND"), "micc_p2plane", MVFNET, BOOT)
    assert part.reported == pytest.approx(1.252 - 1.228) and part.subjects == 40


def test_papers_know_their_rows_and_numbers() -> None:
    assert MVFNET.reported("v4", "INC") == 1.22 and MVFNET.reported("tran_wpool", "IND") == 1.43
    assert MVFNET.reported("oracle", "INC") is None and SIAMESE.reported("mv_concat") == 2.33
    assert MVFNET.label("v4").startswith("v4") and MVFNET.label("nobody") == "nobody"
    for paper in (SIAMESE, MVFNET):
        for table in paper.tables:  # every number that the paper prints stands in a row and a column
            found = {
                value
                for method in table.methods
                for column in table.printed
                for value in (table.value(method, column), table.value(method, column, spread=True))
            }
            assert {row.value for row in load_reported(table.reported)} <= found
        compared = {key for parts in paper.parts.values() for part in parts for key in (part.better, part.worse)}
        assert compared <= {m.key for m in paper.methods} | set(paper.labels)


def test_ladder(errors: pd.DataFrame, tmp_path: Path) -> None:
    steps = ladder(errors, "true_p2p", BOOT)
    assert [(s.worse, s.better) for s in steps] == [("mean_face", "sv_frontal"), ("sv_frontal", "mv_concat")]
    assert all(step.verdict == REPLICATED for step in steps)
    write_errors(tmp_path, {"mean_face": 2.6, "sv_frontal": 1.5})
    assert ladder(load_errors(tmp_path), "true_p2p", BOOT) == []


def test_reported_numbers_and_claims() -> None:
    siamese, mvfnet = SIAMESE.tables[0].reported, MVFNET.tables[0].reported
    assert [row.value for row in load_reported(siamese)] == [3.02, 2.62, 2.51, 2.43, 2.33, 2.23, 2.14]
    assert reported_value(mvfnet, "v4", "mean point-to-plane", "IND") == 1.228
    assert reported_value(siamese, "nobody") is None
    for paper in (SIAMESE, MVFNET):
        assert set(paper.claims) == set(paper.parts)
    waiting = {"dfmvr": 9, "mfnet": 6, "mmface": 7}  # papers whose methods are still to come
    for paper, count in (waiting | {"mvfnet": 6, "siamese": 6}).items():
        assert len(load_claims(SIAMESE.folder.parent / paper / "claims.csv")) == count
    for path in SIAMESE.folder.parent.glob("*/reported/*.csv"):
        assert load_reported(path)
    with pytest.raises(InputError, match="there are table1_3dfaw"):
        load_reported(siamese.parent / "no_such_table.csv")
    with pytest.raises(InputError, match="name the metric"):
        reported_value(mvfnet, "v4")


def test_a_profile_may_not_judge(errors: pd.DataFrame) -> None:
    """The same numbers without verdicts; what was not measured still says so."""
    judged, silent = (judge(errors, SIAMESE, ["armse"], BOOT, judging=judging) for judging in (True, False))
    assert set(silent["verdict"]) == set(silent["claim_verdict"]) == {UNJUDGED}
    pd.testing.assert_frame_equal(*(f.drop(columns=["verdict", "claim_verdict"]) for f in (judged, silent)))
    assert combine([UNJUDGED, UNMEASURED]) == UNMEASURED
    assert all(step.verdict == UNJUDGED for step in ladder(errors, "armse", BOOT, judging=False))


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("mv add.csv", "subject,metric,value\na,armse,1\n", "name of the form"),
        ("mv_add-s0.csv", "subject,value\na,1\n", "lacks metric"),
        ("mv_add-s0.csv", "subject,metric,value\na,armse,nan\n", "row 2"),
        ("mv_add-s0.csv", "subject,metric,value\na,armse,-1\n", "finite errors"),
        ("mv_add-s0.csv", "subject,metric,value\na,armse,1\na,armse,2\n", "some twice"),
        ("mv_add-s0.csv", "method,subject,metric,value\nsv,a,armse,1\n", "method mv_add"),
        ("mv_add-s0.csv", "", "CSV"),
    ],
)
def test_damaged_error_files_are_named(tmp_path: Path, name: str, content: str, words: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=words) as caught:
        load_errors(tmp_path)
    assert name in str(caught.value)


def test_runs_of_seeds_no_longer_asked_for_do_not_count(tmp_path: Path) -> None:
    write_errors(tmp_path, n=4, seeds=(0, 1, 10))
    errors = load_errors(tmp_path, seeds=[1])
    assert set(errors.loc[errors["method"] == "mv_add", "seed"]) == {1}
    assert set(errors["method"]) == set(LEVELS)  # bounds stay, whatever their file is called
