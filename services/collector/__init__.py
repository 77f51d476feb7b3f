"""The collector: the OTLP receiver of one machine. It keeps spans in a file so that a trace can be drawn."""
