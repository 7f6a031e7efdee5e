"Gemma 4 behind the functions that were made for Gemma 3n, on a tiny random model with the stand-in's words and Gemma 4's own processor, chat template and special tokens."
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import trl
from transformers import (AutoConfig, Gemma4AudioConfig, Gemma4AudioFeatureExtractor, Gemma4Config, Gemma4ForConditionalGeneration, Gemma4ImageProcessor, Gemma4Processor,
                          Gemma4TextConfig, Gemma4VideoProcessor, Gemma4VisionConfig, PreTrainedTokenizerFast)

from thinkact_nb import family, memory, model as m
from thinkact_nb.data import make_dataset
from thinkact_nb.env import UserError, get_profile
from thinkact_nb.store import Store
from thinkact_nb.family import STANDIN
from thinkact_nb.trainer import train_rl
from thinkact_nb.sft import train_sft
from thinkact_nb.pool import SimPool

TEMPLATE = sorted((Path(trl.__file__).parent/'chat_templates').glob('gemma4*.jinja'))
EYES = [np.random.default_rng(i).integers(0, 255, (256, 256, 3), np.uint8) for i in range(2)]
NAMES = {'<image_soft_token>': '<|image|>', '<start_of_image>': '<|image>', '<end_of_image>': '<image|>', '<audio_soft_token>': '<|audio|>', '<start_of_audio>': '<|audio>',
         '<end_of_audio>': '<audio|>', '<start_of_turn>': '<|turn>', '<end_of_turn>': '<turn|>', '<image2>': '<|video|>'}
pytestmark = [pytest.mark.usefixtures('one_thread'), pytest.mark.skipif(not TEMPLATE, reason='this TRL ships no chat template of Gemma 4')]


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "Six layers, the last two of which use the keys and values of others. The words of acting are unused slots, as in Google's tokenizer."
    folder = tmp_path_factory.mktemp('tiny')/'base'
    folder.mkdir()
    tokenizer = (STANDIN/'tokenizer.json').read_text(encoding='utf-8')
    slots = {w: f'<unused{i}>' for i, w in enumerate(m.WORDS)}
    for old, new in (NAMES | {f'<unused{i}>': f'<spare{i}>' for i in range(200)} | slots).items(): tokenizer = tokenizer.replace(json.dumps(old), json.dumps(new))
    (folder/'tokenizer.json').write_text(tokenizer, encoding='utf-8')
    words = dict(image_token='<|image|>', audio_token='<|audio|>', boi_token='<|image>', eoi_token='<image|>', boa_token='<|audio>', eoa_token='<audio|>')
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder/'tokenizer.json'), pad_token='<pad>', eos_token='<eos>', bos_token='<bos>', unk_token='<unk>', padding_side='left', extra_special_tokens=words)
    Gemma4Processor(Gemma4AudioFeatureExtractor(), Gemma4ImageProcessor(), tokenizer, Gemma4VideoProcessor(), chat_template=TEMPLATE[-1].read_text(encoding='utf-8')).save_pretrained(folder)
    n = len(tokenizer)
    text = Gemma4TextConfig(vocab_size=n, vocab_size_per_layer_input=n, hidden_size=64, intermediate_size=128, num_hidden_layers=6, num_attention_heads=2, num_key_value_heads=1, head_dim=32,
                            global_head_dim=64, hidden_size_per_layer_input=64, num_kv_shared_layers=2, layer_types=['sliding_attention', 'full_attention']*3, use_double_wide_mlp=True,
                            final_logit_softcapping=30., pad_token_id=0, eos_token_id=1, bos_token_id=2, max_position_embeddings=1024)
    vision = Gemma4VisionConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, head_dim=16)
    audio = Gemma4AudioConfig(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, output_proj_dims=32)
    ids = {k: tokenizer.convert_tokens_to_ids(v) for k, v in dict(image_token_id='<|image|>', boi_token_id='<|image>', eoi_token_id='<image|>', audio_token_id='<|audio|>', boa_token_id='<|audio>',
                                                                  eoa_token_index='<audio|>', video_token_id='<|video|>').items()}
    torch.manual_seed(0)
    Gemma4ForConditionalGeneration(Gemma4Config(text_config=text, vision_config=vision, audio_config=audio, **ids)).save_pretrained(folder)
    return folder


@pytest.fixture
def profile(folder):
    return replace(get_profile('tiny'), model=str(folder), image_size=256, max_new_tokens=8, sft_batch=2, sft_micro_batch=2, lora_rank=4, rl_batch=8, rl_micro_batch=2, eval_batch=2)


def batch(profile):
    processor = m.load_processor(profile)
    texts = [processor.apply_chat_template(m.chat('Put the red block on the blue pad.'), tokenize=False, add_generation_prompt=True) + t
             for t in ('<think>I see <loc03><loc60>.</think>', '<action>pick <loc03><loc60></action>')]
    inputs = processor(text=texts, images=[[m.Image.fromarray(e)] for e in EYES], add_special_tokens=False, padding=True, return_tensors='pt')
    return inputs | dict(labels=inputs['input_ids'].masked_fill(inputs['attention_mask'] == 0, -100))


def gradients(model, inputs):
    model.zero_grad()
    model(**inputs).loss.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def test_words_take_slots_and_images_are_scaled_up(profile):
    processor = m.load_processor(profile)
    assert processor.claimed == list(m.WORDS) and processor.tokenizer.eos_token == '<turn|>'
    prompt = processor.apply_chat_template(m.chat('Go.'), tokenize=False, add_generation_prompt=True)
    assert prompt.endswith('Go.<turn|>\n<|turn>model\n')
    seen = processor(text=[prompt], images=[[m.Image.fromarray(EYES[0])]], add_special_tokens=False, return_tensors='pt')
    assert (seen['input_ids'] == processor.image_token_id).sum() == 64, '384 pixels, in squares of 48'
    with pytest.raises(UserError, match='images and audio'): family.check_words(processor.tokenizer, AutoConfig.from_pretrained(profile.model), ['<|image>'])


def test_images_are_never_written(profile, monkeypatch):
    model, processor = m.load_model(profile, trainable=True), m.load_processor(profile)
    assert len(m.forbidden(model.config)) == 7
    head = model.get_output_embeddings()
    monkeypatch.setattr(head, 'forward', lambda x, forward=head.forward: forward(x).index_fill(-1, torch.tensor(m.forbidden(model.config)), 1e4))
    for text in m.write(model, processor, EYES, ['Go.', 'Stay.'], max_new_tokens=4): assert not set(processor.tokenizer(text).input_ids) & set(m.forbidden(model.config))


def test_four_bits_where_they_belong_and_gradients_under_checkpointing(profile):
    model, inputs = m.load_model(profile, trainable=True), batch(profile)
    four = {n for n, x in model.get_base_model().named_modules() if isinstance(x, m.bitsandbytes.nn.Linear4bit)}
    assert four and not any(s in n for n in four for s in ('vision', 'audio', 'lm_head')) and model.get_base_model().model.audio_tower is None
    torch.nn.init.normal_(m.trained_rows(model), std=.05)
    for n, p in model.named_parameters():
        if 'lora_B' in n: torch.nn.init.normal_(p, std=.05)
    whole = gradients(model, inputs)
    model.train()
    for x in model.modules():
        if isinstance(x, torch.nn.Dropout): x.p = 0.
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=dict(use_reentrant=False))
    again = gradients(model, inputs)
    assert whole.keys() == again.keys() and any('trainable_tokens' in n for n in whole)
    for n in whole: torch.testing.assert_close(whole[n], again[n], rtol=1e-4, atol=1e-6, msg=n)


def test_image_features_once(profile):
    model = m.load_model(profile)
    processor = m.load_processor(profile)
    inputs = batch(profile)
    with torch.no_grad():
        features, one = m.image_features(model, processor, EYES), model(**inputs).logits
        other = model(**{k: v for k, v in inputs.items() if k not in ('pixel_values', 'image_position_ids')}, mm_encoder_outputs=features).logits
    assert torch.equal(one, other)


def test_float16_products_are_clamped(profile):
    "Guard: the hook in `steady`."
    profile = replace(profile, dtype='float16')
    model, inputs = m.load_model(profile), batch(profile)
    def loud(module, args, out): return out*3e3
    for n, x in model.named_modules():
        if n.endswith(('mlp.gate_proj', 'mlp.up_proj')): x.register_forward_hook(loud)
    with torch.no_grad(): assert model(**inputs).logits.isfinite().all()
    for x in model.modules():
        if isinstance(x, m.bitsandbytes.nn.Linear4bit): x._forward_pre_hooks.clear()
    with torch.no_grad(): assert not model(**inputs).logits.isfinite().all()


def test_sft_and_ppo(profile, tmp_path):
    "The chain up to a PPO update, and an adapter that comes back to the bit."
    store, pool = Store(tmp_path/'run', profile), SimPool(0)
    make_dataset(6, store.path('data'), pool, image_size=256)
    assert train_sft(store, steps=2, every=2, validation=2).loss.dropna().gt(0).all()
    inputs = batch(profile)
    def logits(): return m.load_model(profile, str(store.run/'sft'))(**inputs).logits.detach()
    assert torch.equal(logits(), logits()) and not torch.equal(logits(), m.load_model(profile)(**inputs).logits.detach())
    log = train_rl(store, pool, updates=1)
    assert log.reward.eq(-1).all() and (store.run/'rl/ppo/adapter_model.safetensors').exists()


@pytest.mark.parametrize('size, parameters', [('E2B', 5_104_297_504), ('E4B', 7_941_100_832)])
def test_parameters(size, parameters):
    profile = replace(get_profile('gemma4'), model=f'google/gemma-4-{size}-it')
    assert sum(r['parameters'] for r in memory.memory_table(profile)) == parameters


def test_one_word_takes_it(tmp_path):
    "Guard: `Store` takes a profile's name, as the last section of each notebook gives it; None is what fits."
    assert Store(tmp_path/'run', 'gemma4').profile == get_profile('gemma4')
    assert Store(tmp_path/'run').profile.model == 'google/gemma-4-E2B-it'
    with pytest.raises(UserError, match=r"unknown profile 'gemma5': did you mean gemma4\? Otherwise choose from tiny, t4, large, gemma4"): Store(tmp_path/'other', 'gemma5')
