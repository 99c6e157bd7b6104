"""Attributes of a service that this host does not act on yet; a load names those that are used."""

INERT = (
    "blkio_config.device_read_bps",
    "blkio_config.device_read_iops",
    "blkio_config.device_write_bps",
    "blkio_config.device_write_iops",
    "blkio_config.weight_device",
    "cpu_count",
    "cpu_percent",
    "cpu_rt_period",
    "cpu_rt_runtime",
    "credential_spec",
    "isolation",
    "models",
    "provider",
    "storage_opt",
    "use_api_socket",
    "deploy.endpoint_mode",
    "deploy.placement",
)
