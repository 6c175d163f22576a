"""Waiting for something to become true, never without an end."""

import time


def until(check, seconds, what):
    """Calls `check` until it returns something truthy, and returns that. Raises after `seconds`.

    An exception counts as "not yet"; the last one is named when time is up.
    """
    deadline, last = time.monotonic() + seconds, None
    while True:
        try:
            found = check()
            if found:
                return found
            last = None
        except Exception as error:
            last = error
        if time.monotonic() >= deadline:
            raise AssertionError(f"not within {seconds} s: {what}" + (f" (last error: {last!r})" if last else ""))
        time.sleep(0.02)
