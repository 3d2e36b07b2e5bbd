import pickle

import pytest

from wildray import errors
from wildray.errors import (
    ConfigError,
    DataError,
    MediaError,
    WildrayError,
    error_to_bytes,
    nearest,
    raise_error_bytes,
    user_error,
)

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]


@pytest.mark.parametrize("kind", KINDS)
def test_errors_survive_a_process_border(kind):
    error = kind("got x, expected y")
    copy = pickle.loads(pickle.dumps(error))
    assert str(copy) == "got x, expected y"
    assert type(copy) is kind
    assert isinstance(copy, WildrayError)


def test_a_media_error_keeps_its_status():
    assert pickle.loads(pickle.dumps(MediaError("hangs", "timeout"))).status == "timeout"


@pytest.mark.parametrize("error", [MediaError("hangs \udcff\n", "timeout"), DataError("no column"), WildrayError("x")])
def test_an_error_comes_back_from_a_task_without_a_pickle(error):
    data = error_to_bytes(error)
    with pytest.raises(type(error)) as caught:
        raise_error_bytes(data)
    assert type(caught.value) is type(error)
    assert (str(caught.value), vars(caught.value)) == (str(error), vars(error))
    assert data.startswith(b"[")
    raise_error_bytes(b"")


def test_wrong_usage_and_failure_have_their_own_exit_status():
    assert ConfigError("x").exit_status == 2
    assert DataError("x").exit_status == 1


def test_the_nearest_name_or_all_of_them():
    assert nearest("simclrr", ["simclr", "dino"]) == "Did you mean 'simclr'?"
    assert nearest("zzz", ["simclr", "dino"]) == "Known: dino, simclr."


def test_of_many_names_only_some_are_listed():
    names = [f"net{i:03}" for i in range(500)]
    assert nearest("zzz", names) == f"Known: {', '.join(names[:12])}, ... (500 in all)."
    assert nearest("nett017", names) == "Did you mean 'net017'?"
    assert nearest("zzz", names[:12]).endswith("net011.")


def test_the_users_error_is_found_behind_others():
    own = DataError("no column")
    outer = RuntimeError("task failed")
    outer.cause = own
    wrapped = ValueError("stage failed")
    wrapped.__cause__ = outer
    assert user_error(wrapped) is own
    assert user_error(ValueError("a defect")) is None
    loop = ValueError("a")
    loop.__context__ = loop
    assert user_error(loop) is None
