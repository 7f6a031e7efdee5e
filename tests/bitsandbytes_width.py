"""bitsandbytes computes NF4 wrongly on a CPU with AVX-512 where a layer reads no multiple of 64 numbers: `python bitsandbytes_width.py`."""
import bitsandbytes
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit


def errors(widths):
    "Relative error of the weights after NF4; 0.09 is the price of four bits."
    torch.manual_seed(0)
    weights = [torch.randn(64, width) for width in widths]
    return {w.shape[1]: float((dequantize_4bit(*quantize_4bit(w, quant_type='nf4')) - w).norm()/w.norm()) for w in weights}


if __name__ == '__main__':
    print('bitsandbytes', bitsandbytes.__version__, 'torch', torch.__version__, torch.backends.cpu.get_cpu_capability())
    for width, error in errors(range(32, 289, 32)).items(): print(f'{width:4} inputs: {error:.2f}', '' if error < .1 else '  wrong')
