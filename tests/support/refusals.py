"""Wrong input: what a command or a script says about it, and what it must not leave behind."""

from __future__ import annotations

from seg_l1.cli.main import main


def assert_refused(result, words, folder):
    """Exit code 2, one to three lines with `words`, no traceback, no run."""
    code, out, err = result
    assert code == 2, out + err
    assert 1 <= err.count("\n") <= 3, err
    assert max(map(len, err.splitlines())) < 700, err
    assert "Traceback" not in out + err
    for word in words:
        assert word in err
    assert not list(folder.glob("outputs/*/*"))
    assert not (folder / "owned").exists()


def called(script, words, capsys):
    """What a command returns and prints."""
    capsys.readouterr()
    code = main([script, *words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err
