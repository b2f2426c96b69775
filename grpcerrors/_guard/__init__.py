"""The guard: `sync` and `aio` are two surfaces of one logic.

`protocol` and `methods` say what an RPC does, `models` and `hosts` which models are there, and
`session` and `guard` what a call gets.
"""
