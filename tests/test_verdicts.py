"""What several reviewers say of a pair, taken together."""

from wildray.verdicts import VerdictFile, judged


def file(**words: str) -> VerdictFile:
    verdicts = {(int(name[1:]), 2**62): word for name, word in words.items()}
    return VerdictFile("v.json", "sheet", "pairs", "Ada", verdicts, dict.fromkeys(verdicts, 1.0), 0)


def test_one_reviewer_is_believed():
    assert judged([file(p1="same", p2="unsure")]) == {(1, 2**62): "same", (2, 2**62): "unsure"}


def test_who_is_sure_decides_and_contradiction_is_unsure():
    found = judged([file(p1="same", p2="same", p3="unsure"), file(p1="unsure", p2="different", p4="not_an_animal")])
    words = {key[0]: word for key, word in found.items()}
    assert words == {1: "same", 2: "unsure", 3: "unsure", 4: "not_an_animal"}


def test_most_of_three_decide():
    found = judged(
        [file(p1="same", p2="same"), file(p1="same", p2="different"), file(p1="different", p2="not_an_animal")]
    )
    assert list(found.values()) == ["same", "unsure"]
