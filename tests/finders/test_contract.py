"""The contract of finders, for every finder and reference of the registries."""

import pytest

import contract
from plantjax import finders


@pytest.mark.parametrize("arguments", contract.cases())
def test_finders_keep_the_contract(arguments):
    case = contract.make_case(*arguments)
    for check in contract.CHECKS:
        check(case)


def test_every_finder_and_reference_has_a_case_but_for_some_of_the_levels():
    found = {param.values[0][2] for param in contract.cases()}
    assert found | contract.TWICE == {*finders.FINDERS, *finders.REFERENCES}
