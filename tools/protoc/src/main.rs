//! The part of protoc's command line that the build scripts of dependencies use, over protox.

use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let mut includes: Vec<PathBuf> = Vec::new();
    let mut files: Vec<PathBuf> = Vec::new();
    let mut output = None;
    let mut compiler_flags = (false, false);

    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--version" => {
                println!("libprotoc 33.0");
                return Ok(());
            }
            "--include_imports" => compiler_flags.0 = true,
            "--include_source_info" => compiler_flags.1 = true,
            "--experimental_allow_proto3_optional" => {}
            "-o" => output = Some(PathBuf::from(value()?)),
            "-I" => includes.push(PathBuf::from(value()?)),
            option if option.starts_with('-') => return Err(format!("unknown option {option}").into()),
            file => files.push(PathBuf::from(file)),
        }
    }

    let output = output.ok_or("-o FILE is missing")?;
    let mut compiler = protox::Compiler::new(includes)?;
    compiler.include_imports(compiler_flags.0).include_source_info(compiler_flags.1);
    for file in files {
        compiler.open_file(file)?;
    }
    std::fs::write(output, compiler.encode_file_descriptor_set())?;
    Ok(())
}
