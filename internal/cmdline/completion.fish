# Completion of @NAME@ in fish: the program itself says what may come next.
function __complete_@NAME@
	set -l words (commandline -opc)
	set -l current (commandline -ct)
	for line in ($words[1] completion words -- $words[2..] "$current" 2>/dev/null)
		switch $line
			case ':files*'
				__fish_complete_path "$current"
			case ':directories*'
				__fish_complete_directories "$current"
			case '*'
				echo $line
		end
	end
end
complete -c @NAME@ -f -a '(__complete_@NAME@)'
