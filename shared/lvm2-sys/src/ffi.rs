//! `lvm2cmd.h`, by hand: what is used of it.

use std::ffi::{c_char, c_int, c_void};

/// `lvm2_log_fn_t`: level, source file, line, errno of device-mapper, text.
pub(crate) type LogFunction =
    unsafe extern "C" fn(c_int, *const c_char, c_int, c_int, *const c_char);

#[expect(unsafe_code, reason = "functions of a C library")]
unsafe extern "C" {
    pub(crate) fn lvm2_log_fn(function: Option<LogFunction>);
    pub(crate) fn lvm2_init() -> *mut c_void;
    pub(crate) fn lvm2_disable_dmeventd_monitoring(handle: *mut c_void);
    pub(crate) fn lvm2_log_level(handle: *mut c_void, level: c_int);
    pub(crate) fn lvm2_run(handle: *mut c_void, line: *const c_char) -> c_int;
    pub(crate) fn lvm2_exit(handle: *mut c_void);
}
