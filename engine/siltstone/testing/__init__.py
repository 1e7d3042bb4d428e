"""Conformance suites for pytest: what a plugin of somebody else runs in its own tests.

Needs pytest, which Siltstone itself does not install.
"""

import pytest

# Without this a failed assertion in a shipped module shows no values.
pytest.register_assert_rewrite(
    *(
        f"siltstone.testing.{module}"
        for module in ("backend", "entry_type", "_backend_lasting", "_backend_transfers")
    )
)
