"""The daemon: OSC and watched folders in, stems out. `service` joins the parts; commands go

`osc → protocol → jobs → worker → engine → worker → jobs → osc`, and the watch folder enters at `jobs`.
"""
