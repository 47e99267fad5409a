"""Believes whoever an object says it is from (breaks I10)."""

from __future__ import annotations

from comity.cli import main
from comity.service import policy

_check_object = policy.check_object


def believe(*arguments: object) -> object:
    view, refusal = _check_object(*arguments)  # type: ignore[arg-type]  # passed on
    is_about_sender = refusal is not None and "From" in refusal.text
    return view, None if is_about_sender else refusal


if __name__ == "__main__":
    policy.check_object = believe  # type: ignore[assignment]  # the sabotage
    main(prog_name="comity")
