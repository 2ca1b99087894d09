"""Forms of text that are looked at without a regular expression, which takes longer to compile: against one."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from provisioning.base.disk import files
from provisioning.config import check
from provisioning.engines import names
from provisioning.flight.manifest import checks
from provisioning.flight.signing import public
from tests.properties import examples

PART = r"[A-Za-z0-9_+][A-Za-z0-9_+.=,@-]{0,200}"
WORD = r"[A-Za-z0-9.+~-]+"


def accepted_by(find):
    def accepts(text):
        issues = []
        find(text, "here", issues)
        return not issues

    return accepts


FORMS = {
    "digest": (r"[0-9a-f]{64}", accepted_by(checks.digest)),
    "decimal": (r"-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,18})?", accepted_by(checks.decimal)),
    "word": (r"[!-~]{1,255}", accepted_by(checks.word)),
    "name": (r"[!-~]([ -~]{0,253}[!-~])?", accepted_by(checks.name)),
    "path": (rf"{PART}(/{PART}){{0,7}}", checks._is_path),
    "id": (r"[\x21-\x7e]{1,128}", check._is_id),
    "model": (r"[A-Za-z0-9][A-Za-z0-9.-]{0,63}", check._is_model_name),
    "pem": (
        r"\s*-----BEGIN PUBLIC KEY-----[A-Za-z0-9+/=\s]+-----END PUBLIC KEY-----\s*",
        lambda text: public._is_one_pem(text.encode()),
    ),
    "temporary": (r"\.tmp-[0-9]+-[0-9]+-", lambda text: files.temporary_writer(text) is not None),
    "engine": (
        rf"({WORD})(_{WORD})*_(sm[0-9]+|x86_64|{WORD})_{WORD}_(trt|rtx|ort){WORD}_(fp32|fp16|int8)\.engine",
        lambda text: names._parse(text) is not None,
    ),
}
ODD = ["", "é", "٣", "\n", "\x1c", "\x85", "\x7f", "-", ".", "_", "/", " ", "0", "a" * 202, "x86_64", "_fp16.engine"]


@pytest.mark.parametrize("form", FORMS)
@examples(0.4, nightly=1)
@given(data=st.data())
def test_a_form_is_that_of_its_regular_expression(form, data):
    pattern, accepts = FORMS[form]
    sound = data.draw(st.from_regex(re.compile(pattern, re.ASCII), fullmatch=True))
    assert accepts(sound)
    odd, at = data.draw(st.sampled_from(ODD)), data.draw(st.integers(0, len(sound)))
    changed = sound[:at] + odd + sound[at + data.draw(st.integers(0, 2)) :]
    whole = re.fullmatch if form != "temporary" else re.match
    assert accepts(changed) == (whole(pattern, changed, re.ASCII) is not None)
