"What several test files share."
import pytest
import torch


@pytest.fixture
def one_thread():
    "Small models gain nothing from more, and the seed gives the same numbers."
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


LONGEST = 'test_a_killed_pretraining', 'test_killed_and_resumed_on_fresh_machines', 'test_bandit_is_solved', 'test_ppo_of_two_processes'


def pytest_collection_modifyitems(items):
    "The longest tests come first: begun last, one would keep one core busy for minutes while the other waits."
    items.sort(key=lambda item: not item.name.startswith(LONGEST))
