//! The machine as the API sees it: reads come from the shared view, actions go to the supervisor.

use std::sync::mpsc;

use api::types::dump::{Dump, DumpRequest};
use api::types::vm::{VmInfo, VmSummary};
use api::{ServiceError, VmService};

use super::AgentHandle;
use super::supervisor::{Action, Input, Reply};
use crate::boot::KernelImage;

impl AgentHandle {
    fn check_name(&self, name: &str) -> Result<(), ServiceError> {
        if name == self.shared.config.name {
            return Ok(());
        }
        Err(ServiceError::NotFound {
            what: "machine",
            name: name.to_owned(),
        })
    }

    /// Gives the supervisor something to do and waits for its answer.
    fn ask<T>(&self, name: &str, input: impl FnOnce(Reply<T>) -> Input) -> Result<T, ServiceError> {
        self.check_name(name)?;
        let gone = || ServiceError::Unavailable(format!("machine {name} has ended"));
        let (reply, answer) = mpsc::channel();
        self.inputs.send(input(reply)).map_err(|_| gone())?;
        answer.recv().map_err(|_| gone())?
    }

    fn act(&self, name: &str, action: Action) -> Result<(), ServiceError> {
        self.ask(name, |reply| Input::Act { action, reply })
    }

    fn summary(&self) -> VmSummary {
        let config = &self.shared.config;
        let view = self.shared.view();
        VmSummary {
            name: config.name.clone(),
            state: view.state,
            pid: std::process::id(),
            vcpus: u32::from(config.vcpus),
            mem_mib: config.mem_mib,
            incarnation: view.incarnation,
            started_at: view.started_at.clone(),
        }
    }
}

impl VmService for AgentHandle {
    fn list(&self) -> Vec<VmSummary> {
        vec![self.summary()]
    }

    fn info(&self, name: &str) -> Result<VmInfo, ServiceError> {
        self.check_name(name)?;
        let config = &self.shared.config;
        let summary = self.summary();
        let view = self.shared.view();
        Ok(VmInfo {
            schema_version: api::SCHEMA_VERSION,
            summary,
            kernel: match &config.kernel {
                KernelImage::File(path) => path.display().to_string(),
                KernelImage::Bytes(_) => "built in".to_owned(),
            },
            on_crash: config.on_crash.to_string(),
            netdump: config.targets.iter().map(ToString::to_string).collect(),
            spool: config.spool.as_ref().map(|dir| dir.display().to_string()),
            last_dump_id: view.dumps.last_id(),
            crashes: view.crashes,
        })
    }

    fn dump(&self, name: &str, request: DumpRequest, idempotency_key: Option<String>) -> Result<Dump, ServiceError> {
        self.ask(name, |reply| Input::Dump {
            request,
            idempotency_key,
            reply,
        })
    }

    fn dump_status(&self, id: &str) -> Result<Dump, ServiceError> {
        self.shared.view().dumps.get(id).ok_or_else(|| no_dump(id))
    }

    fn cancel_dump(&self, id: &str) -> Result<Dump, ServiceError> {
        let view = self.shared.view();
        let cancelled = view.dumps.cancel(id);
        let dump = view.dumps.get(id).ok_or_else(|| no_dump(id))?;
        if cancelled {
            Ok(dump)
        } else {
            Err(ServiceError::WrongState(format!("dump {id} is over")))
        }
    }

    fn nmi(&self, name: &str) -> Result<(), ServiceError> {
        self.act(name, Action::Nmi)
    }

    fn pause(&self, name: &str) -> Result<(), ServiceError> {
        self.act(name, Action::Pause)
    }

    fn resume(&self, name: &str) -> Result<(), ServiceError> {
        self.act(name, Action::Resume)
    }

    fn stop(&self, name: &str) -> Result<(), ServiceError> {
        self.check_name(name)?;
        AgentHandle::stop(self);
        Ok(())
    }
}

fn no_dump(id: &str) -> ServiceError {
    ServiceError::NotFound {
        what: "dump",
        name: id.to_owned(),
    }
}
