"""Work that is done before a device is held, so that the device does not wait for it."""
