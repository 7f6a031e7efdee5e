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
