"""The daemon: OSC and watched folders in, stems out. `service` joins the parts; commands go

`osc_server → desk → jobs → worker → engine → worker → jobs → events → osc_server`

and the watch folder enters at `jobs`.
"""
