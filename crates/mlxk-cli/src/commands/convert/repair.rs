//! The repairs of `mlxk convert`.

use super::{Data, Making, headline};
use crate::error::CommandError;
use crate::output::{Output, printable};
use crate::repair::{Plan, diff_text};
use crate::workspace::build::{Building, check_target};

pub(super) fn run(making: &Making<'_>, output: &Output) -> Result<(), CommandError> {
    let Making { args, source, target, caches, .. } = making;
    let target = check_target(target, caches)?;
    let plan = Plan::new(&args.repair, source)?;
    let mut data = Data {
        message: message(&plan, args.dry_run),
        warning: (!plan.notes().is_empty()).then(|| plan.notes().join("; ")),
        changes: plan.shown(),
        ..making.data()
    };
    if !args.dry_run {
        let building = Building::begin(&target, caches)?;
        plan.execute(building.path())?;
        making.finish(building.path(), &mut data)?;
        building.commit()?;
    }
    match output.is_json() {
        true => output.success("convert", &data),
        false => output.write(&printable(&text(&data))),
    }
}

fn message(plan: &Plan, dry_run: bool) -> String {
    match (plan.shown().len(), dry_run) {
        (0, _) => "nothing had to be mended".to_owned(),
        (1, true) => "1 file would change".to_owned(),
        (n, true) => format!("{n} files would change"),
        (1, false) => "1 file was changed".to_owned(),
        (n, false) => format!("{n} files were changed"),
    }
}

fn text(data: &Data) -> String {
    let warning = data.warning.as_ref().map_or(String::new(), |text| format!("warning: {text}\n"));
    match data.dry_run {
        true => format!("{}{warning}convert: {}\n", diff_text(&data.changes), data.message),
        false => warning + &headline(data),
    }
}
