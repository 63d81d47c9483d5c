//! Commands of LVM, one at a time, with what they say.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::ffi;

/// `LVM2_LOG_ERROR`: it and what is graver goes to [`Output::errors`].
const ERROR: c_int = 3;
/// `LVM2_LOG_PRINT`: the output of a command.
const PRINT: c_int = 4;
/// The level is in the low bits; above them LVM keeps flags, as that a message goes to standard error.
const LEVEL_MASK: c_int = 0x7;
/// `_LOG_STDERR`: a warning, which is logged at the level of output.
const TO_STDERR: c_int = 0x80;
/// `LVM2_COMMAND_SUCCEEDED`.
const SUCCEEDED: c_int = 1;

/// Whether there is an [`Lvm`]: the library bears one.
static TAKEN: AtomicBool = AtomicBool::new(false);
/// What the command under way has said.
static SAID: Mutex<Output> = Mutex::new(Output::new());

/// Why a command was not run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is one in this process already.
    #[error("LVM is already in use in this process")]
    Taken,
    /// The library does not begin.
    #[error("LVM cannot be initialised: {0}")]
    Initialise(String),
    /// No way to quote it: it contains both kinds of quotes, a line's end or a zero byte.
    #[error("`{0}` cannot be an argument of LVM")]
    Argument(String),
}

/// What a command came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// Whether it did what it should.
    pub is_success: bool,
    /// `LVM2_COMMAND_SUCCEEDED` and so on: 1 for success, 2 to 5 for failures.
    pub code: i32,
    /// Lines of output.
    pub lines: Vec<String>,
    /// Errors and warnings.
    pub errors: Vec<String>,
}

impl Output {
    const fn new() -> Self {
        Self {
            is_success: false,
            code: 0,
            lines: Vec::new(),
            errors: Vec::new(),
        }
    }
}

/// The library, initialised. It stays on the thread that has it.
#[derive(Debug)]
pub struct Lvm {
    handle: *mut c_void,
    _not_sent: PhantomData<*mut c_void>,
}

impl Lvm {
    /// Initialises the library. Its settings are those of the system (`/etc/lvm`) and of the environment.
    ///
    /// # Errors
    /// When there is one in this process, or the library refuses.
    pub fn open() -> Result<Self, Error> {
        if TAKEN.swap(true, Ordering::AcqRel) {
            return Err(Error::Taken);
        }
        #[expect(unsafe_code, reason = "functions of a C library")]
        // SAFETY: the function outlives the library, and there is no other handle in this process.
        let handle = unsafe {
            ffi::lvm2_log_fn(Some(log));
            ffi::lvm2_init()
        };
        if handle.is_null() {
            TAKEN.store(false, Ordering::Release);
            return Err(Error::Initialise(take().errors.join("; ")));
        }
        #[expect(unsafe_code, reason = "functions of a C library")]
        // SAFETY: the handle is that of `lvm2_init`.
        unsafe {
            ffi::lvm2_log_level(handle, PRINT);
        }
        let lvm = Self {
            handle,
            _not_sent: PhantomData,
        };
        take();
        Ok(lvm)
    }

    /// Leaves the daemon that watches pools alone, which the library would start for those it activates.
    pub fn without_monitoring(&mut self) {
        #[expect(unsafe_code, reason = "functions of a C library")]
        // SAFETY: the handle is that of `lvm2_init`, and no command is under way.
        unsafe {
            ffi::lvm2_disable_dmeventd_monitoring(self.handle);
        }
    }

    /// Runs a command, such as `["lvs", "--units", "b"]`.
    ///
    /// # Errors
    /// When an argument cannot be passed. A command that fails is an [`Output`].
    pub fn run<A: AsRef<str>>(&mut self, arguments: &[A]) -> Result<Output, Error> {
        let line = join(arguments)?;
        let line = CString::new(line).map_err(|error| {
            let bytes = error.into_vec();
            Error::Argument(String::from_utf8_lossy(&bytes).into_owned())
        })?;
        #[expect(unsafe_code, reason = "functions of a C library")]
        // SAFETY: the handle is that of `lvm2_init`, the line ends with a zero byte and is only read, and nobody else
        // uses the library: this is borrowed for it.
        let code = unsafe { ffi::lvm2_run(self.handle, line.as_ptr()) };
        Ok(Output {
            is_success: code == SUCCEEDED,
            code,
            ..take()
        })
    }
}

impl Drop for Lvm {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "functions of a C library")]
        // SAFETY: the handle is that of `lvm2_init`, and is used no more.
        unsafe {
            ffi::lvm2_exit(self.handle);
            ffi::lvm2_log_fn(None);
        }
        TAKEN.store(false, Ordering::Release);
    }
}

/// One line of arguments as `lvm_split` of LVM takes it apart: at white space, or between two quotes of one kind, in which
/// nothing has a meaning.
///
/// # Errors
/// When there is no way to write an argument.
pub fn join<A: AsRef<str>>(arguments: &[A]) -> Result<String, Error> {
    let mut line = String::new();
    for argument in arguments {
        let argument = argument.as_ref();
        let quote = if argument.contains('\'') { '"' } else { '\'' };
        if argument.contains(quote) || argument.contains(['\n', '\0']) {
            return Err(Error::Argument(argument.to_owned()));
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.extend([quote]);
        line.push_str(argument);
        line.push(quote);
    }
    Ok(line)
}

fn take() -> Output {
    std::mem::take(&mut SAID.lock().unwrap_or_else(PoisonError::into_inner))
}

#[expect(unsafe_code, reason = "called by a C library")]
unsafe extern "C" fn log(
    level: c_int,
    _file: *const c_char,
    _line: c_int,
    _errno: c_int,
    text: *const c_char,
) {
    let grade = level & LEVEL_MASK;
    if grade > PRINT || text.is_null() {
        return;
    }
    // SAFETY: the library passes a text that ends with a zero byte and is there until we return.
    let text = unsafe { CStr::from_ptr(text) };
    let text = text.to_string_lossy().trim_end().to_owned();
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if grade <= ERROR || level & TO_STDERR != 0 {
        said.errors.push(text.trim_start().to_owned());
    } else {
        said.lines.push(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_quoted_so_that_nothing_in_them_has_a_meaning() {
        let config = r#"devices{filter=["a|^/dev/loop0$|","r|.*|"]}"#;
        let line = join(&["lvs", "--config", config, "# no comment"]).unwrap();
        assert_eq!(line, format!("'lvs' '--config' '{config}' '# no comment'"));
        assert_eq!(join(&["it's"]).unwrap(), "\"it's\"");
        for bad in ["'\"", "a\nb", "a\0b"] {
            assert_eq!(join(&[bad]), Err(Error::Argument(bad.to_owned())));
        }
    }

    /// All in one, since there is one library.
    #[test]
    fn commands_answer_one_after_the_other() {
        let mut lvm = Lvm::open().unwrap();
        assert!(matches!(Lvm::open(), Err(Error::Taken)));
        lvm.without_monitoring();
        let version = lvm.run(&["version"]).unwrap();
        assert!(version.is_success, "{version:?}");
        assert!(
            version
                .lines
                .iter()
                .any(|line| line.contains("LVM version")),
            "{version:?}"
        );
        let unknown = lvm.run(&["no-such-command"]).unwrap();
        assert_eq!(
            (unknown.is_success, unknown.code),
            (false, 2),
            "{unknown:?}"
        );
        let again = lvm.run(&["lvs", "no-such-group"]).unwrap();
        assert!(!again.is_success && !again.errors.is_empty(), "{again:?}");
        assert!(lvm.run(&["version"]).unwrap().is_success);
        drop(lvm);
        assert!(Lvm::open().is_ok());
    }
}
