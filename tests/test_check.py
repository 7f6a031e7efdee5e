"`thinkact check gemma`: memory counted on tensors without data, and every step taken once on the stand-in."
import json

import pandas as pd
import pytest
import torch
from thinkact_nb import check, report
from thinkact_nb.env import SPLITS, UserError, get_profile
from thinkact_nb.store import Store

pytestmark = pytest.mark.usefixtures('one_thread')


@pytest.mark.parametrize('name', ['t4', pytest.param('gemma4', marks=pytest.mark.long)])
def test_table_and_count_agree(name):
    "Guard: `peak_table` in model/memory. At the real shapes of both E2Bs its peaks are within a tenth of what is counted, and all fit a T4."
    rows = pd.DataFrame(check.counted_table(get_profile(name))).set_index('step')
    assert set(rows.index) == {'SFT step', 'PPO step', 'rollout'}
    assert (rows.table / rows.counted - 1).abs().max() < .1, rows
    assert rows.counted.max() < check.CAP


def test_what_is_alive_is_counted():
    with check.Live() as live:
        kept = [torch.ones(2**18) for _ in range(3)]
        view = kept[0].view(2, -1)
        del kept[1:]
        assert live.now == 2**20 and view.sum() == 2**18
        torch.zeros(2**18)
    assert live.peak == 3*2**20


def test_gradients_that_point_elsewhere_fail():
    a, b = {'x': torch.tensor([1., 0.]), 'y': torch.tensor([1., 1.])}, {'x': torch.tensor([1., 0.]), 'y': torch.tensor([1., -1.])}
    assert check.agreement(a, a) == pytest.approx((1, 1))
    whole, worst = check.agreement(a, b)
    assert worst == pytest.approx(0) and 0 < whole < 1


def test_on_the_stand_in(tmp_path):
    "All checks pass on a machine without a GPU, training is stopped and goes on, and the page says what it was made on."
    receipt = check.check_gemma(get_profile('tiny'), tmp_path/'check')
    assert receipt['verdict'] == 'passed', receipt
    assert [r['check'] for r in receipt['checks']] == ['demonstrations', 'gradients', 'SFT, stopped and resumed', 'PPO update']
    assert json.loads((tmp_path/'check/receipt.json').read_text(encoding='utf-8'))['model'] == 'the stand-in'
    page = (tmp_path/'check/receipt.md').read_text(encoding='utf-8')
    assert page.startswith('# passed: the stand-in on ') and 'stopped after step 2 and went on' in page


def test_a_machine_without_a_gpu_is_told_so(tmp_path):
    if torch.cuda.is_available(): pytest.skip('there is one')
    with pytest.raises(UserError, match='needs an NVIDIA GPU'): check.check_gemma(get_profile('t4'), tmp_path)


def test_a_card_names_the_base_and_its_successes(tmp_path):
    "Guard: `model_card`: the base by its name on the Hub, no path of this machine, every task with its interval."
    store = Store(tmp_path/'run', get_profile('t4'))
    rows = [dict(task=task, level='L0', seed=SPLITS['test'] + i, perturbed='', arm='sft', success=i % 2 == 0) for task in ('stack', 'sort') for i in range(10)]
    card = report.model_card(store, pd.DataFrame(rows))
    assert 'base_model: unsloth/gemma-3n-E2B-it' in card and str(tmp_path) not in card
    assert '| sft | all | 10 | 20 | 50 % | 30 to 70 % |' in card and '| sft | stack | 5 | 10 |' in card
    assert 'PeftModel.from_pretrained' in card and 'not Gemma' not in card
    standin = report.model_card(Store(tmp_path/'tiny', get_profile('tiny')), pd.DataFrame(rows))
    assert 'say nothing about Gemma' in standin and 'base_model' not in standin
