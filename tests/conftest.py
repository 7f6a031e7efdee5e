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


def pytest_collection_modifyitems(items):
    "The longest test comes first: begun last, it would keep one core busy for minutes while the other waits."
    items.sort(key=lambda item: item.name != 'test_a_killed_pretraining_goes_on_to_the_same_weights')
