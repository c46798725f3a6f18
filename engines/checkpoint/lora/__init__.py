"""LoRA adapters as PEFT saves them: read (`adapter`), and merged into a checkpoint (`merged`).

An adapter is a folder with adapter_config.json and adapter_model.safetensors. What its config says
is understood whole or refused by name: `config`.
"""
