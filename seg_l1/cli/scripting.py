"""What the scripts share: key=value words, their exit codes, their error lines."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from seg_l1 import distributed
from seg_l1.errors import RunError, UserError, did_you_mean, short


def script(
    words: Sequence[str],
    work: Callable[[dict[str, str]], int],
    *,
    help_text: str,
    keys: Sequence[str] | None,
    needed: Sequence[str],
) -> int:
    """Calls `work` with the key=value `words`; returns its exit code, or 2 for a `UserError`.

    Args:
        keys: those that there are; None = `work` checks them.
    """
    if {"-h", "--help"} & set(words):
        print(help_text.strip())
        return 0
    try:
        distributed.refuse("a script", "start it with python, without torchrun")
        typed = dict(word.split("=", 1) if "=" in word else (word, "") for word in words)
        bare = next((word for word in words if "=" not in word), None)
        if bare is not None and keys is not None:
            known = " ".join(f"{key}=..." for key in keys)
            raise UserError(f"{bare}: words look like {known}")
        for key in typed:
            if keys is not None and key not in keys:
                raise UserError(f"there is no key '{key}'.{did_you_mean(key, keys)}")
        for key in dict.fromkeys([*needed, *(typed if keys is not None else ())]):
            if not typed.get(key):
                raise UserError(f"{key}: must be given, as {key}=...")
        try:
            return work(typed)
        except OSError as error:
            file = short(str(error.filename))[1:-1]
            raise UserError(f"{file}: {error.strerror}; choose another file or folder") from error
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        return 130
    except UserError as error:
        sys.stderr.write("".join(f"error: {line}\n" for line in (*error.details, str(error))))
        return 2
    except RunError as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
