import pytest


def test_a_data_folder_that_cannot_be_made_is_told(muster, tmp_path):
    (tmp_path / "file").write_text("")
    done = muster("up", "--data-dir", str(tmp_path / "file" / "data"))
    assert done.code == 1
    assert done.err.startswith(f"Error: cannot use {tmp_path}/file/data")


@pytest.mark.parametrize(
    "wrong", [("--label", "a=1,b=2"), ("--label", "nothing"), ("--slots", "0"), ("extra",)]
)
def test_malformed_options_are_wrong_usage(muster, wrong, tmp_path):
    assert muster("up", "--data-dir", str(tmp_path), *wrong).code == 2
